"""A task's grader, kept from taking a run with it: an answer that it cannot grade scores 0.

When more than a set share of a stage's answers could not be graded, the stage stops.
"""

import threading
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace

from fastslow.core.errors import EvaluationError, TaskError
from fastslow.core.plugins import MODULE_PATHS
from fastslow.core.text import shorten
from fastslow.core.types import Example, Grade
from fastslow.task.definition import Grader, Task
from fastslow.task.graders import boxed_match, exact_match
from fastslow.task.workers import Crashed, SentGrader, TimeOut, borrowed

FEWEST = 20
"""Answers graded in a stage before its share of failures means anything. Source: ours."""
FAILED = "The grader failed: "
"""Begins the reason of a score that no grader gave."""


class GuardedGrader:
    """Grades as `grade` does in another process; 0 with a reason where it fails or takes too long.

    The timeout is that of one answer; a share in [0, 1] of a stage's answers may fail.

    Raises:
        TaskError: The grader cannot be sent to another process.
    """

    def __init__(
        self, task: str, grade: Grader, timeout_s: float, max_failures_frac: float
    ) -> None:
        self.task = task
        self.unguarded = grade
        try:
            self._sent = SentGrader(grade, MODULE_PATHS)
        except Exception as error:  # objects decide for themselves how they cannot be sent
            raise TaskError(
                f"task {task}: its grader cannot be sent to the process that graders run in, got "
                f"{type(error).__name__}: {shorten(str(error), 120)}. Make open files, locks and "
                "clients inside the grader, when it is called first."
            ) from error
        self.timeout_s = timeout_s
        self.max_failures_frac = max_failures_frac
        self.graded = 0
        """Answers since the stage began."""
        self.failures = 0
        """Of them, those that could not be graded."""
        self.reported = 0
        """Of these, those that `report` was told of."""
        self.last = ""
        """Why the last one failed."""
        self.printed = ""
        """The end of what it printed last, until `take_printed`; untrusted."""
        self._lock = threading.Lock()

    def __call__(self, example: Example, text: str) -> Grade:
        """The grade of one completion; errors as of `grade_all`."""
        return self.grade_all([(example, text)])[0]

    def grade_all(self, answers: Sequence[tuple[Example, str]]) -> list[Grade]:
        """The grades of completions, in order.

        Raises:
            EvaluationError: Too many could not be graded.
        """
        with closing(self.attempts(answers)) as grades:
            return [
                self._counted(example, grade)
                for (example, _), grade in zip(answers, grades, strict=True)
            ]

    def _counted(self, example: Example, grade: Grade | str) -> Grade:
        with self._lock:
            self.graded += 1
            if isinstance(grade, Grade):
                return grade
            self.failures += 1
            self.last = f"example '{shorten(example.id, 60)}': it {grade}"
        self.require_few_failures()
        return Grade(0.0, f"{FAILED}it {grade}.")

    def attempt(self, example: Example, text: str) -> Grade | str:
        """The grade of one completion, or why there is none; nothing is counted."""
        [grade] = self.attempts([(example, text)])
        return grade

    def attempts(self, answers: Sequence[tuple[Example, str]]) -> Generator[Grade | str]:
        """The same of several, in order; what follows a failure goes to another process.

        To be closed, where not all are taken, so that no process is left with the rest.
        """
        num_graded = 0
        while num_graded < len(answers):
            try:
                with borrowed() as worker:
                    if failure := worker.load(self._sent):
                        raise TaskError(
                            f"task {self.task}: its grader cannot be loaded in another process, "
                            f"got {failure}. Define it in a module that can be imported by name."
                        )
                    rest = answers[num_graded:]
                    for grade, printed in worker.grades(self._sent, rest, self.timeout_s):
                        num_graded += 1
                        self.printed = printed or self.printed
                        yield grade
            except (TimeOut, Crashed) as end:
                num_graded += 1
                yield (
                    f"took longer than {self.timeout_s:g} s"
                    if isinstance(end, TimeOut)
                    else "ended the process it ran in"
                )

    @property
    def counts(self) -> list[int]:
        """Graded, failed and reported: what a resumed run needs."""
        return [self.graded, self.failures, self.reported]

    @counts.setter
    def counts(self, counts: Sequence[int]) -> None:
        self.graded, self.failures, self.reported = counts

    def report(self) -> int:
        """How many failed since this was asked last."""
        new, self.reported = self.failures - self.reported, self.failures
        return new

    def take_printed(self) -> str:
        """The end of what the grader printed last, since this was asked last."""
        printed, self.printed = self.printed, ""
        return printed

    def require_few_failures(self) -> None:
        """Stop where the share of failures is past what is allowed.

        Raises:
            EvaluationError: It is; says what the last one was.
        """
        most = self.max_failures_frac * max(self.graded, FEWEST)
        if self.failures > most:
            raise EvaluationError(
                f"grader of {self.task}: could not grade {self.failures} of {self.graded} answers "
                f"of this stage, more than graders.max_failures_frac = {self.max_failures_frac:g} "
                f"of {max(self.graded, FEWEST)}. The last: {self.last}. Correct the grader, or "
                "raise graders.timeout_s or graders.max_failures_frac."
            )


def grade_all(grade: Grader, answers: Sequence[tuple[Example, str]]) -> list[Grade]:
    """The grades of completions, in order; at once where the grader is guarded.

    Raises:
        EvaluationError: As of a guarded grader.
    """
    if isinstance(grade, GuardedGrader):
        return grade.grade_all(answers)
    return [grade(example, text) for example, text in answers]


def guard_graders(
    tasks: Mapping[str, Task], timeout_s: float, max_failures_frac: float
) -> dict[str, Task]:
    """The same tasks with their graders guarded."""
    return {
        name: replace(
            task, grade=GuardedGrader(task.name, task.grade, timeout_s, max_failures_frac)
        )
        for name, task in tasks.items()
    }


def is_exact(grade: Grader) -> bool:
    """Whether it is `exact_match`, guarded or not: the gold answer alone scores.

    Then the gold answer's probability is the pass rate at temperature 1, but for the full stop and
    white space that are forgiven.
    """
    return _unguarded(grade) is exact_match


def has_reasoning(grade: Grader) -> bool:
    """Whether completions reason before their answer: it is `boxed_match`, guarded or not."""
    return _unguarded(grade) is boxed_match


def attempted_score(grade: Grader, example: Example, text: str) -> float | None:
    """The score of one completion, None where it cannot be graded; no guard counts it."""
    result = (
        grade.attempt(example, text) if isinstance(grade, GuardedGrader) else grade(example, text)
    )
    return result.score if isinstance(result, Grade) else None


def _unguarded(grade: Grader) -> Grader:
    return grade.unguarded if isinstance(grade, GuardedGrader) else grade


def guards(tasks: Iterable[Task]) -> list[GuardedGrader]:
    """The guards of those tasks that have one."""
    return [task.grade for task in tasks if isinstance(task.grade, GuardedGrader)]
