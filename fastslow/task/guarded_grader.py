"""A task's grader, kept from taking a run with it: what it raises or never says is a score of 0.

One failing example is data: score 0, the reason kept, counted. When more than a set share of a
stage's answers could not be graded, the stage stops.
"""

import contextlib
import ctypes
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from fastslow.core.errors import EvaluationError
from fastslow.core.text import shorten
from fastslow.core.types import Example, Grade
from fastslow.task.definition import Grader, Task

AGAIN_S = 1.0
"""Code that catches the exception gets it again after so long."""


class OutOfTime(BaseException):
    """The limit is over. Not an `Exception`, so that code under the limit does not swallow it."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End what is within it after so long.

    Args:
        seconds: > 0.

    Raises:
        OutOfTime: It took longer.
    """
    is_main = threading.current_thread() is threading.main_thread()
    with _alarm(seconds) if is_main else _watched(seconds):
        yield


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """The system's timer, which other code may be using: it gets it back with what was left."""
    rung = []

    def ring(*_: object) -> None:
        rung.append(True)
        raise OutOfTime

    started = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN_S)
    try:
        yield
    finally:
        _surely(lambda: signal.setitimer(signal.ITIMER_REAL, 0))
        signal.signal(signal.SIGALRM, handler)
        if left:
            rest = max(left - (time.monotonic() - started), 1e-3)
            signal.setitimer(signal.ITIMER_REAL, rest, interval)
    if rung:  # also where the code under the limit caught it
        raise OutOfTime


@contextlib.contextmanager
def _watched(seconds: float) -> Iterator[None]:
    """Another thread waits, and raises in this one."""
    watch = _Watch(threading.get_ident(), seconds)
    watch.start()
    try:
        yield
    finally:
        _surely(watch.end)
    if watch.has_rung:
        raise OutOfTime


def _surely(end: Callable[[], object]) -> None:
    """End a limit even where it rings while it is being ended."""
    while True:
        with contextlib.suppress(OutOfTime):
            end()
            return


class _Watch(threading.Thread):
    """Raises `OutOfTime` in a thread that takes too long.

    Args:
        target: Which thread.
        seconds: How long it may take.
    """

    def __init__(self, target: int, seconds: float) -> None:
        super().__init__(name="deadline", daemon=True)
        self._target, self._seconds = target, seconds
        self._is_over = threading.Event()
        self._lock = threading.Lock()
        self.has_rung = False

    def run(self) -> None:
        """Wait, then ring until the other thread says that it is over."""
        wait = self._seconds
        while not self._is_over.wait(wait):
            with self._lock:
                if not self._is_over.is_set():
                    self.has_rung = True
                    exception = ctypes.py_object(OutOfTime)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(self._target), exception
                    )
            wait = AGAIN_S

    def end(self) -> None:
        """Called by the other thread: once it returned, nothing is raised there any more."""
        with self._lock:
            self._is_over.set()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._target), None)


FEWEST = 20
"""Answers graded in a stage before its share of failures means anything. Source: ours."""
FAILED = "The grader failed: "
"""What the reason of a score begins with that no grader gave."""
_QUOTED = 120


class GuardedGrader:
    """Grades as `grade` does, and gives 0 with a reason where that fails or takes too long.

    Args:
        task: Name of the task.
        grade: The task's own grader.
        timeout_s: Seconds one answer may take.
        max_failures_frac: Share of a stage's answers that may fail, in [0, 1].
    """

    def __init__(
        self, task: str, grade: Grader, timeout_s: float, max_failures_frac: float
    ) -> None:
        self.task = task
        self.grade = grade
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
        self._lock = threading.Lock()

    def __call__(self, example: Example, text: str) -> Grade:
        """The grade of one completion.

        Raises:
            EvaluationError: Too many could not be graded.
        """
        failure = ""
        try:
            with time_limit(self.timeout_s):
                grade = self.grade(example, text)
            if not (isinstance(grade, Grade) and _is_score(grade.score)):
                failure = f"returned {shorten(repr(grade), _QUOTED)}, no Grade in [0, 1]"
        except OutOfTime:
            failure = f"took longer than {self.timeout_s:g} s"
        except (Exception, SystemExit) as error:  # a task's own code may raise anything
            failure = f"raised {type(error).__name__}: {shorten(str(error), _QUOTED)}"
        with self._lock:
            self.graded += 1
            if not failure:
                return grade
            self.failures += 1
            self.last = f"example '{shorten(example.id, 60)}': it {failure}"
        self.require_few_failures()
        return Grade(0.0, f"{FAILED}it {failure}.")

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


def guards(tasks: Iterable[Task]) -> list[GuardedGrader]:
    """The guards of those tasks that have one."""
    return [task.grade for task in tasks if isinstance(task.grade, GuardedGrader)]


def _is_score(score: object) -> bool:
    return isinstance(score, int | float) and math.isfinite(score) and 0 <= score <= 1
