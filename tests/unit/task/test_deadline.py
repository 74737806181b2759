"""Time limits in the main thread and in others, on code that does not want to end."""

import re
import signal
import threading
import time

import pytest

from fastslow.task.guarded_grader import OutOfTime, time_limit

LIMIT = 0.05


def spin() -> None:
    while True:
        pass


def backtrack() -> None:
    re.fullmatch(r"(a+)+b", "a" * 40)


def test_a_loop_and_a_regular_expression_end_in_the_main_thread() -> None:
    for work in (spin, backtrack):
        started = time.monotonic()
        with pytest.raises(OutOfTime), time_limit(LIMIT):
            work()
        assert time.monotonic() - started < 0.9


def test_a_loop_ends_in_another_thread() -> None:
    ended = []

    def work() -> None:
        try:
            with time_limit(LIMIT):
                spin()
        except OutOfTime:
            ended.append(True)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert ended == [True] * 4


def in_a_thread(work: threading.Thread) -> None:
    work.start()
    work.join()


def test_work_within_the_limit_is_left_alone_and_nothing_rings_later() -> None:
    def work() -> None:
        for _ in range(200):
            with time_limit(LIMIT):
                sum(range(100))
        time.sleep(2 * LIMIT)
        done.append(True)

    done: list[bool] = []
    work()
    in_a_thread(threading.Thread(target=work))
    assert done == [True, True]


def test_code_that_catches_everything_is_out_of_time_all_the_same() -> None:
    def work() -> None:
        try:
            time.sleep(2 * LIMIT)
        except BaseException:
            return

    def limited() -> None:
        try:
            with time_limit(LIMIT):
                work()
        except OutOfTime:
            ended.append(True)

    ended: list[bool] = []
    limited()
    in_a_thread(threading.Thread(target=limited))
    assert ended == [True, True]


def test_a_timer_of_other_code_goes_on_after() -> None:
    rung = []
    handler = signal.signal(signal.SIGALRM, lambda *_: rung.append(True))
    before = signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with time_limit(5):
            pass
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 0.1
        time.sleep(0.15)
        assert rung == [True]
    finally:
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, *before)
