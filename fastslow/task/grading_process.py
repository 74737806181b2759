"""The process in which graders run: takes examples and completions, gives grades, prints nothing.

The end of what a grader prints in Python goes with the grade; what its own processes print is lost.

Started by `workers.py`, which ends it when a grade takes too long. Python's and NumPy's generators,
and torch's where it is loaded, are seeded before every grade from the example and the completion,
so that a grader that draws gives the same grade for the same answer.
"""

import faulthandler
import hashlib
import importlib.util
import io
import os
import pickle
import random
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy

from fastslow.core.text import shorten
from fastslow.core.types import Example, Grade

SPARE_S = 5.0
"""So long after its limit a grade ends the process by itself, should nobody else be there to."""
MAX_PRINTED = 400
"""Characters that are kept, from the end, of what a grader prints under one grade."""
_QUOTED = 120
RETURNED = "returned "
"""Begins the failure of a grader that answered with something other than a grade."""


class Output(io.TextIOWrapper):
    """Standard output and error of graders: goes nowhere, but for its end."""

    def __init__(self) -> None:
        super().__init__(open(os.devnull, "wb"), encoding="utf-8", errors="replace")  # noqa: PTH123, SIM115  # for good
        self._end = ""

    def write(self, text: str, /) -> int:
        """Remember the end of the text with what came before."""
        self._end = (self._end + text)[-MAX_PRINTED:]
        return super().write(text)

    def take(self) -> str:
        """The end of what was written since this was asked last, of `MAX_PRINTED` characters."""
        end, self._end = self._end.strip(), ""
        return end.encode(errors="replace").decode()


class TaskModules(MetaPathFinder):
    """Finds modules of tasks that were loaded from a path, under the name they were given."""

    def __init__(self) -> None:
        self.paths: dict[str, str] = {}
        """Path by module name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module of that name, if it is one of them."""
        if fullname not in self.paths:
            return None
        return importlib.util.spec_from_file_location(fullname, self.paths[fullname])


def serve() -> None:
    """Answer requests from standard input until it ends; graders see neither it nor the output."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    sys.stdout = sys.stderr = output = Output()
    modules = TaskModules()
    sys.meta_path.append(modules)
    graders: dict[str, Callable[[Example, str], Any]] = {}

    def answer(result: object) -> None:
        pickle.dump(result, answers)
        answers.flush()

    while True:
        try:
            request = pickle.load(requests)
        except EOFError:
            return
        match request:
            case ("load", key, content, paths):
                modules.paths |= paths
                failure: str | None = None
                try:
                    graders[key] = pickle.loads(content)
                except Exception as error:  # a task's own module may raise anything
                    failure = f"{type(error).__name__}: {shorten(str(error), _QUOTED)}"
                answer(failure)
            case ("grade", key, completions, limit_s):
                for example, text in completions:
                    faulthandler.dump_traceback_later(limit_s + SPARE_S, exit=True, file=nothing)
                    output.take()
                    answer((graded(graders[key], example, text), output.take()))
                    faulthandler.cancel_dump_traceback_later()


def graded(grade: Callable[[Example, str], Any], example: Example, text: str) -> Grade | str:
    """The grade of one completion, or why there is none."""
    seed_generators(example.id, text)
    try:
        result = grade(example, text)
    except (Exception, SystemExit) as error:  # a task's own code may raise anything
        return f"raised {type(error).__name__}: {shorten(str(error), _QUOTED)}"
    # fields are of the types that a task's own code gave them
    score: Any = result.score if isinstance(result, Grade) else None
    reason: Any = result.reason if isinstance(result, Grade) else None
    if isinstance(score, int | float | numpy.number) and 0 <= score <= 1:
        if isinstance(reason, str):
            return Grade(score if isinstance(score, int | float) else float(score), reason)
        return f"{RETURNED}{shorten(repr(result), _QUOTED)}, whose reason is not a text"
    return f"{RETURNED}{shorten(repr(result), _QUOTED)}, not a Grade in [0, 1]"


def seed_generators(*texts: str) -> None:
    """Seed every global generator there is from some texts."""
    digest = hashlib.sha256("\0".join(texts).encode(errors="surrogatepass")).digest()
    seed = int.from_bytes(digest[:4])
    random.seed(seed)
    numpy.random.seed(seed)  # the global generator is what graders draw from
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)
