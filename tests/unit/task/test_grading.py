"""Graders that raise, hang or return nonsense: a score of 0 with the reason, up to a share."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from fastslow.core.errors import EvaluationError
from fastslow.core.types import Example, Grade
from fastslow.task.guarded_grader import GuardedGrader, guard_graders, guards
from tests.support.toy_tasks import letters

EXAMPLE = Example("e\x1b1", "question", "answer")


def guarded(grade: Callable[[Example, str], Any], most: float = 1.0) -> GuardedGrader:
    return GuardedGrader("alpha", grade, 0.05, most)


def raising(example: Example, text: str) -> Grade:
    raise ZeroDivisionError("no\x1b[31m")


def leaving(example: Example, text: str) -> Grade:
    raise SystemExit(3)


def hanging(example: Example, text: str) -> Grade:
    while True:
        try:
            while True:
                pass
        except Exception:
            continue


@pytest.mark.parametrize(
    ("grade", "reason"),
    [
        (raising, "it raised ZeroDivisionError: no\\x1b[31m."),
        (leaving, "it raised SystemExit: 3."),
        (hanging, "it took longer than 0.05 s."),
        (lambda *_: 1.0, "it returned 1.0, no Grade in [0, 1]."),
        (lambda *_: Grade(float("nan"), "x"), "no Grade in [0, 1]."),
        (lambda *_: Grade(1.5, "x"), "no Grade in [0, 1]."),
        (lambda *_: Grade("1", "x"), "no Grade in [0, 1]."),  # type: ignore[arg-type]  # as a task might
    ],
)
def test_whatever_a_grader_does_is_a_zero_with_its_reason(grade: Any, reason: str) -> None:
    guard = guarded(grade)
    given = guard(EXAMPLE, "text")
    assert given.score == 0
    assert given.reason.startswith("The grader failed: it ")
    assert given.reason.endswith(reason)
    assert (guard.graded, guard.failures, guard.report(), guard.report()) == (1, 1, 1, 0)
    assert "'e\\x1b1'" in guard.last


def test_a_grade_passes_through_unchanged() -> None:
    tasks = guard_graders({"alpha": letters.build("alpha")}, 5, 0.1)
    given = tasks["alpha"].grade(tasks["alpha"].test[0], "abz")
    assert given == letters.build("alpha").grade(tasks["alpha"].test[0], "abz")
    assert [guard.counts for guard in guards(tasks.values())] == [[1, 0, 0]]


def test_past_a_share_the_stage_stops_and_says_why() -> None:
    guard = guarded(lambda example, text: 1 / 0 if text else Grade(1.0, "correct"), most=0.1)
    for _ in range(30):
        guard(EXAMPLE, "")
    for _ in range(3):
        assert guard(EXAMPLE, "x").score == 0
    with pytest.raises(
        EvaluationError, match="could not grade 4 of 34 answers of this stage"
    ) as end:
        guard(EXAMPLE, "x")
    assert "graders.max_failures_frac = 0.1" in str(end.value)
    assert "ZeroDivisionError" in str(end.value)


def test_a_few_failures_among_the_first_answers_do_not_stop_a_stage() -> None:
    guard = guarded(raising, most=0.1)
    assert [guard(EXAMPLE, "").score for _ in range(2)] == [0, 0]
    with pytest.raises(EvaluationError, match="3 of 3 answers"):
        guard(EXAMPLE, "")


def test_threads_are_counted_and_limited_alike() -> None:
    guard = guarded(hanging)
    threads = [threading.Thread(target=guard, args=(EXAMPLE, "")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert guard.counts == [4, 4, 0]
