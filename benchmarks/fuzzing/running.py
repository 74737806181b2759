"""Runs cases in a process of their own, one after the other, and names what became of each.

A case that is not done in time is killed with its process and counted as a hang; a process that
dies is counted too. Outcomes are `accepted`, the class of a typed error, the exit code of a command
that refused, or one of `BAD`.
"""

import contextlib
import getpass
import io
import multiprocessing
import os
import random
import resource
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TypeAlias

from benchmarks.fuzzing.judging import (
    OUTSIDE,
    TOKEN,
    TOKENS,
    faults_of_files,
    leaked,
    plant_outside,
    unsafe,
)
from benchmarks.fuzzing.watching import Watch, snapshot
from fastslow.cli.main import printable
from fastslow.core.errors import FastSlowError

MEMORY_BYTES = 12 << 30
"""Address space of the process that runs cases; PyTorch alone maps several gigabytes."""
OF_TORCH = f"torchinductor_{getpass.getuser()}"
"""A folder that PyTorch makes among the temporary ones, when it is imported or first compiles."""
EXIT_CODES = (0, 1, 2, 3)
REFUSED = 2
BAD = (
    *("traceback", "hang", "died", "outside", "program", "socket", "pickle", "unsafe text"),
    *("unsafe file", "leak", "exit code", "not refused"),
)
"""Outcomes that must not be."""


@dataclass(frozen=True)
class Exit:
    """How a command ended."""

    code: int
    is_refusal: bool = False
    """Whether the command had to refuse what it was given."""


Case: TypeAlias = Callable[[random.Random, Path], Callable[[], object]]
"""Makes one piece of hostile input in the folder it is given, and returns what to do with it: a
command gives its `Exit`, anything else may give what it likes."""


@dataclass(frozen=True)
class Result:
    """What became of one case."""

    section: str
    index: int
    outcome: str
    detail: str
    """What the error said, or the end of the traceback."""


def case_name(seed: int, section: str, index: int) -> str:
    """Seed of one case's mutations."""
    return f"{seed}/{section}/{index}"


def run_case(make: Case, name: str, section: str, index: int, folder: Path, watch: Watch) -> Result:
    """Make one case, run it under watch, and judge how it ended."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    outside, temporary = folder.parent / OUTSIDE, Path(tempfile.gettempdir())
    plant_outside(outside)
    act = make(random.Random(name), folder)
    said = io.StringIO()
    outcome, detail = "accepted", ""
    before, began = snapshot(outside, contents=True), time.time_ns()
    with (
        watch.inside(folder, temporary),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        try:
            outcome = _outcome(act())
            left = {path.name for path in temporary.iterdir()} - {OF_TORCH}
            if left:
                watch.seen.append(f"outside: left behind {sorted(left)[:5]}")
        except FastSlowError as error:
            outcome, detail = type(error).__name__, printable(error)
        except BaseException as error:  # whatever a case gets through is what is looked for
            outcome = "traceback"
            lines = "".join(traceback.format_exception(error)).splitlines()
            detail = "\n".join(line[:200] for line in lines[-24:])
    text = f"{said.getvalue()}\n{detail}"
    faults = list(watch.seen)
    if changed := sorted({*before.items()} ^ {*snapshot(outside, contents=True).items()}):
        faults.append(f"outside: {changed[0][0]}")
    faults += faults_of_files(folder, began)
    if outcome != "traceback" and (complaint := unsafe(text)):
        faults.append(f"unsafe text: {complaint}: {text!r:.1500}")
    if word := leaked(text):
        faults.append(f"leak: said {word}: {text!r:.1500}")
    if faults:
        outcome, detail = faults[0].partition(":")[0], "; ".join([*faults[:5], detail])
    elif outcome in BAD or outcome.startswith("exit"):
        detail = detail or said.getvalue()
    return Result(section, index, outcome, detail)


def _outcome(result: object) -> str:
    if not isinstance(result, Exit):
        return "accepted"
    if result.code not in EXIT_CODES:
        return "exit code"
    if result.is_refusal and result.code != REFUSED:
        return "not refused"
    return f"exit {result.code}" if result.code else "accepted"


def run_section(
    section: str,
    make: Case,
    count: int,
    seed: int,
    scratch: Path,
    *,
    limit_s: float,
    start: int = 0,
) -> Iterator[Result]:
    """Run `count` cases of one section, from index `start`.

    Args:
        section: Its name.
        make: Makes a case.
        count: How many.
        seed: Of all of them.
        scratch: An existing folder for the input.
        limit_s: Seconds after which a case counts as a hang.
        start: Index of the first one.
    """
    context = multiprocessing.get_context("fork")
    index, end = start, start + count
    while index < end:
        ours, theirs = context.Pipe()
        arguments = (theirs, section, make, seed, scratch, index, end)
        worker = context.Process(target=_work, args=arguments, daemon=True)
        worker.start()
        theirs.close()
        while index < end:
            outcome = "hang"
            try:
                if ours.poll(limit_s):
                    yield ours.recv()
                    index += 1
                    continue
            except EOFError:
                outcome = "died"
            worker.kill()
            worker.join()
            yield Result(section, index, outcome, f"exit code {worker.exitcode}")
            index += 1
            break
        worker.join(limit_s)


def _work(
    results: Connection, section: str, make: Case, seed: int, scratch: Path, start: int, end: int
) -> None:
    """The process that runs cases."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    folder = scratch / "case"
    os.chdir(scratch)
    os.environ |= dict.fromkeys(TOKENS, TOKEN)
    watch = Watch()
    temporary = scratch / "tmp"
    temporary.mkdir(exist_ok=True)
    tempfile.tempdir = os.environ["TMPDIR"] = str(temporary)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(temporary / OF_TORCH)
    for index in range(start, end):
        name = case_name(seed, section, index)
        results.send(run_case(make, name, section, index, folder, watch))
    results.close()
