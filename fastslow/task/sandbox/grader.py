"""A grader for answers that are programs: runs them, and compares what they print.

Programs run in a closed room (`run.py`); the right answer is known here and not in there, so
a program can only be right by printing it. For tasks declared with `runs_code=True`.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from fastslow.core.errors import EvaluationError
from fastslow.core.types import Example, Grade
from fastslow.task.graders import CORRECT, quote
from fastslow.task.sandbox.run import ProgramResult, run_program

_FENCED = re.compile(r"```[a-z0-9]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
MAX_SOURCE_CHARS = 20_000
"""Longer programs score 0 without being run."""
REMEMBERED = 4096
"""Programs and inputs whose end is known, so that equal completions run once."""


@dataclass(frozen=True, slots=True)
class Case:
    """The input of a program and the output it should print."""

    stdin: str
    """Standard input."""
    expected: str
    """Standard output; white space at both ends does not count."""


def program_grader(cases: Callable[[Example], Sequence[Case]]) -> Callable[[Example, str], Grade]:
    """A grader that scores 1 if the program in a completion is right in every case, 0 otherwise.

    The program is the last fenced block, or the whole text if there is none. An example has at
    least one case; they are tried in order up to a wrong one. The grader raises EvaluationError
    when programs cannot be run on this machine.
    """

    @lru_cache(REMEMBERED)
    def run(source: str, stdin: str) -> ProgramResult:
        try:
            return run_program(source, stdin)
        except OSError as err:
            raise EvaluationError(f"grader: a program could not be run: {err}") from err

    def grade(example: Example, text: str) -> Grade:
        source = program_in(text)
        if not source.strip():
            return Grade(0.0, "No program was written.")
        if len(source) > MAX_SOURCE_CHARS:
            return Grade(0.0, f"The program is longer than {MAX_SOURCE_CHARS} characters.")
        for case in cases(example):
            result = run(source, case.stdin)
            when = f"given {quote(case.stdin.strip())}"
            if result.ending != "done":
                return Grade(0.0, f"The program, {when}, was {result.ending}: {result.complaint}")
            if result.output.strip() != case.expected.strip():
                wrote = f"wrote {quote(result.output.strip())}, not {quote(case.expected.strip())}"
                return Grade(0.0, f"The program, {when}, {wrote}.")
        return Grade(1.0, CORRECT)

    return grade


def program_in(text: str) -> str:
    """The source in a completion: its last fenced block, or all of it."""
    blocks: list[str] = _FENCED.findall(text)
    return blocks[-1] if blocks else text
