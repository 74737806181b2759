"""Graders that raise, hang or return nonsense: a score of 0 with the reason, up to a share."""

import os
import random
import re
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from fastslow.core.errors import EvaluationError, TaskError
from fastslow.core.types import Example, Grade
from fastslow.task import workers
from fastslow.task.grading_process import MAX_PRINTED
from fastslow.task.guarded_grader import FAILED, GuardedGrader, grade_all, guard_graders, guards
from fastslow.task.registry import build_task
from tests.support.toy_tasks import letters

EXAMPLE = Example("e\x1b1", "question", "answer")


LIMIT_S = 0.5


def guarded(grade: Callable[[Example, str], Any], most: float = 1.0) -> GuardedGrader:
    return GuardedGrader("alpha", grade, LIMIT_S, most)


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


def backtracking(example: Example, text: str) -> Grade:
    re.fullmatch(r"(a+)+b", "a" * 40)  # within C, which holds the interpreter
    raise AssertionError


def alarming(example: Example, text: str) -> Grade:
    signal.signal(signal.SIGALRM, lambda *_: 1 / 0)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(1)
    raise AssertionError


def crashing(example: Example, text: str) -> Grade:
    os.abort()


def printing(example: Example, text: str) -> Grade:
    print("printed")
    os.system("echo printed; echo printed >&2")
    return Grade(1.0, "correct")


def drawing(example: Example, text: str) -> Grade:
    return Grade((random.random() + np.random.random()) / 2, str(hash("word")))


@pytest.mark.parametrize(
    ("grade", "reason"),
    [
        (raising, "it raised ZeroDivisionError: no\\x1b[31m."),
        (leaving, "it raised SystemExit: 3."),
        (hanging, "it took longer than 0.5 s."),
        (backtracking, "it took longer than 0.5 s."),
        (alarming, "it raised ZeroDivisionError: division by zero."),
        (crashing, "it ended the process it ran in."),
        (lambda *_: 1.0, "it returned 1.0, not a Grade in [0, 1]."),
        (lambda *_: Grade(float("nan"), "x"), "not a Grade in [0, 1]."),
        (lambda *_: Grade(1.5, "x"), "not a Grade in [0, 1]."),
        (
            lambda *_: Grade(85.0, "x"),
            "returned Grade(score=85.0, reason='x'), not a Grade in [0, 1].",
        ),
        (
            lambda *_: Grade(1.0, None),  # type: ignore[arg-type]  # as a task might
            "returned Grade(score=1.0, reason=None), whose reason is not a text.",
        ),
        (lambda *_: Grade(1.0, 3), "whose reason is not a text."),  # type: ignore[arg-type]  # as a task might
        (lambda *_: Grade("1", "x"), "not a Grade in [0, 1]."),  # type: ignore[arg-type]  # as a task might
    ],
)
def test_whatever_a_grader_does_is_a_zero_with_its_reason(grade: Any, reason: str) -> None:
    guard = guarded(grade)
    failed = guard(EXAMPLE, "text")
    assert failed.score == 0
    assert failed.reason.startswith("The grader failed: it ")
    assert failed.reason.endswith(reason)
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


def test_a_grader_prints_nothing_and_a_slow_one_is_ended_with_what_it_started(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert guarded(printing)(EXAMPLE, "").score == 1

    def starting(example: Example, text: str) -> Grade:
        os.system(f"sleep 1; touch {text}")
        return Grade(1.0, "correct")

    assert guarded(starting)(EXAMPLE, str(tmp_path / "late")).score == 0
    time.sleep(0.8)
    assert not (tmp_path / "late").exists()
    assert capfd.readouterr() == ("", "")


def logging_at_length(example: Example, text: str) -> Grade:
    sys.stderr.write("x" * 1000 + f"\n{text}")
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), b"to the file itself")
    return Grade(1.0, "correct")


def test_the_end_of_what_a_grader_prints_is_kept_until_it_is_taken(
    capfd: pytest.CaptureFixture[str],
) -> None:
    guard = guarded(printing)
    guard(EXAMPLE, "")
    assert (guard.take_printed(), guard.take_printed()) == ("printed", "")
    guard = guarded(logging_at_length)
    for text in ("first", "second"):
        guard(EXAMPLE, text)
    printed = guard.take_printed()
    assert printed.endswith("x\nsecond")
    assert len(printed) == MAX_PRINTED
    assert capfd.readouterr() == ("", "")


def test_a_grader_that_needs_the_main_thread_has_it_in_every_thread() -> None:
    guard = guarded(alarming)
    grades: list[Grade] = []
    thread = threading.Thread(target=lambda: grades.append(guard(EXAMPLE, "")))
    thread.start()
    thread.join(10)
    assert "ZeroDivisionError" in grades[0].reason  # its alarm rang; it was not refused


def test_a_grader_that_draws_gives_an_answer_the_same_grade_every_time() -> None:
    first = {text: guarded(drawing)(EXAMPLE, text) for text in "abc"}
    assert len({grade.score for grade in first.values()}) == 3
    guarded(crashing)(EXAMPLE, "")  # so that another process grades
    assert {text: guarded(drawing)(EXAMPLE, text) for text in "cba"} == first


def by_text(example: Example, text: str) -> Grade:
    """Does what the completion says."""
    {"hang": hanging, "crash": crashing, "raise": raising}.get(text, printing)(example, text)
    time.sleep(LIMIT_S / 4 * (text == "wait"))
    return Grade(float(text == "right"), text)


def test_of_answers_graded_together_each_has_its_own_grade_and_limit() -> None:
    guard = guarded(by_text)
    texts = ["right", "hang", *["wait"] * 5, "crash", "raise", "hang", "right", "wrong"]
    grades = guard.grade_all([(EXAMPLE, text) for text in texts])
    assert [grade.score for grade in grades] == [1] + [0] * 9 + [1, 0]
    failed = [n for n, grade in enumerate(grades) if grade.reason.startswith(FAILED)]
    assert [texts[n] for n in failed] == ["hang", "crash", "raise", "hang"]
    assert guard.counts == [12, 4, 0]
    assert guard(EXAMPLE, "right").score == 1  # the same process is asked, and in step
    assert grade_all(guard, []) == []


def busy_children() -> set[int]:
    """Processes that this one started, but for those that wait for answers to grade."""
    children = {child.pid for child in psutil.Process().children()}
    return children - {worker.process.pid for worker in workers._idle}


def test_answers_graded_together_stop_where_too_many_failed() -> None:
    before = busy_children()
    guard = guarded(by_text, most=0.1)
    texts = ["right"] + ["raise"] * 100
    with pytest.raises(EvaluationError, match="3 of 4 answers") as end:
        guard.grade_all([(EXAMPLE, text) for text in texts])
    assert guard.counts == [4, 3, 0]
    assert busy_children() <= before, end  # while it is held
    assert guard.attempt(EXAMPLE, "right") == Grade(1.0, "right")


def test_a_forked_process_limits_its_own_graders() -> None:
    guard = guarded(by_text)
    guard(EXAMPLE, "right")
    if (pid := os.fork()) == 0:
        os._exit(0 if "longer" in guard(EXAMPLE, "hang").reason else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_grade_costs_little_more_than_the_grader_itself() -> None:
    guard = guarded(lambda example, text: Grade(1.0, "correct"))
    guard(EXAMPLE, "x")
    before = time.process_time()
    for _ in range(200):
        guard(EXAMPLE, "x")
    assert (time.process_time() - before) / 200 < 1e-3


def test_a_grader_that_cannot_be_sent_is_refused_before_anything_is_graded() -> None:
    lock = threading.Lock()

    def grade(example: Example, text: str) -> Grade:
        with lock:
            return Grade(1.0, "correct")

    with pytest.raises(TaskError, match=r"task alpha: its grader cannot be sent .*pickle.*lock"):
        guarded(grade)


def test_a_grader_whose_module_is_nowhere_is_refused_when_it_is_first_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = types.ModuleType("nowhere_at_all")
    exec("def grade(example, text): pass", module.__dict__)
    monkeypatch.setitem(sys.modules, "nowhere_at_all", module)
    with pytest.raises(TaskError, match="cannot be loaded in another process, got ModuleNotFound"):
        guarded(module.grade)(EXAMPLE, "")


def test_a_shipped_task_is_graded_as_its_own_grader_does() -> None:
    task = build_task("country_continent", None, None)
    guard = guarded(task.grade)
    for example in task.test[:3]:
        for text in (example.answer, "Atlantis"):
            assert guard(example, text) == task.grade(example, text)
