"""Ctrl-C in a fast phase; `tests/engines/test_stopping.py` does it at ten moments."""

import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from fastslow.loop import launch
from fastslow.loop import signals as ours
from fastslow.loop.signals import Stopped, StopRequest
from tests.support.fast_phases import (
    FAST,
    RUN,
    before_draw,
    interrupt,
    stopped_and_resumed,
    whole_run,
)
from tests.support.runs import newest, no_report, outcome, start


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> tuple[dict[str, Any], int]:
    """A run with GEPA that nothing stopped, and its draws in fast phases."""
    return whole_run(tmp_path_factory.mktemp("whole"), "gepa", tiny_folder)


def test_ctrl_c_in_a_fast_phase_saves_and_says_how_to_continue(
    whole: tuple[dict[str, Any], int], tmp_path: Path, tiny_folder: Path
) -> None:
    expected, draws = whole
    assert stopped_and_resumed(tmp_path, "gepa", tiny_folder, draws // 3) == expected


def test_the_second_ctrl_c_in_a_fast_phase_leaves_it_with_the_streams_as_they_were(
    whole: tuple[dict[str, Any], int],
    tmp_path: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken, inner = threading.Event(), StopRequest._take

    def take(self: StopRequest, number: int, frame: FrameType | None) -> None:
        inner(self, number, frame)
        taken.set()

    def twice() -> None:
        interrupt()
        assert taken.wait(60)  # else the system makes one signal of both
        interrupt()

    monkeypatch.setattr(StopRequest, "_take", take)
    monkeypatch.setattr(ours, "SAME_REQUEST_S", 0.0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    streams = sys.stdout, sys.stderr
    try:
        with before_draw(3, twice), pytest.raises(Stopped) as stop:
            start(tmp_path, [f"model.name={tiny_folder}"], RUN.replace("FAST", FAST["gepa"]))
    finally:
        signal.signal(signal.SIGINT, before)
    assert (sys.stdout, sys.stderr) == streams
    assert stop.value.__notes__ == [f"fastslow resume {newest(tmp_path)}"]
    assert [path.name for path in (newest(tmp_path) / "resume").iterdir()] == ["000-000"]
    assert outcome(launch.resume(newest(tmp_path), no_report)) == whole[0]
