"""Ctrl-C in a fast phase; `tests/engines/test_stopping.py` does it at ten moments."""

import signal
import sys
import threading
from pathlib import Path
from types import FrameType

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


@pytest.mark.parametrize("optimizer", ["gepa", "simba"])
def test_ctrl_c_in_a_fast_phase_saves_and_says_how_to_continue(
    tmp_path: Path, tiny_folder: Path, optimizer: str
) -> None:
    expected, draws = whole_run(tmp_path / "whole", optimizer, tiny_folder)
    stopped = stopped_and_resumed(tmp_path / "stopped", optimizer, tiny_folder, draws // 3)
    assert stopped == expected


def test_the_second_ctrl_c_in_a_fast_phase_leaves_it_with_the_streams_as_they_were(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
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
    words, text = [f"model.name={tiny_folder}"], RUN.replace("FAST", FAST["demos"])
    try:
        with before_draw(3, twice), pytest.raises(Stopped) as stop:
            start(tmp_path, words, text)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (sys.stdout, sys.stderr) == streams
    assert stop.value.__notes__ == [f"fastslow resume {newest(tmp_path)}"]
    assert [path.name for path in (newest(tmp_path) / "resume").iterdir()] == ["000-000"]
    whole = start(tmp_path / "whole", words, text)
    assert outcome(launch.resume(newest(tmp_path), no_report)) == outcome(whole)
