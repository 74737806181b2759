"""Limits on what a thread waits for, and time that does not count."""

import threading
import time

import pytest

from fastslow.task import time_limit
from fastslow.task.time_limit import Watch

STOOD_STILL_S = 600.0


def test_a_limit_is_over_after_its_seconds_and_not_when_it_was_left_in_time() -> None:
    watch, over = Watch(), threading.Event()
    with watch.limited(0.05, over.set) as limit:
        assert over.wait(60)
    assert limit.is_over
    with watch.limited(0.05, over.clear) as limit:
        pass
    with watch.limited(0.1, threading.Event().set) as longer:
        while not longer.is_over:
            time.sleep(0.01)
    assert not limit.is_over
    assert over.is_set()


def test_time_in_which_the_process_stood_still_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time_limit, "LOOK_S", 0.05)
    clock, jumped = time.monotonic, 0.0
    looks = 0

    def now() -> float:
        nonlocal looks
        looks += 1
        return clock() + jumped

    monkeypatch.setattr(time, "monotonic", now)
    watch, over = Watch(), threading.Event()
    with watch.limited(STOOD_STILL_S / 2, over.set) as limit:
        before, jumped = looks, STOOD_STILL_S
        while looks < before + 3:
            time.sleep(0.01)
    assert not limit.is_over
    assert STOOD_STILL_S / 3 < limit.left_s < STOOD_STILL_S / 2
    assert not over.is_set()
