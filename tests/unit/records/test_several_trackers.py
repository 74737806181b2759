"""Several trackers of one run: each fails, recovers and is sent what it missed on its own."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from fastslow.config.loading.load import load_config
from fastslow.core.errors import ConfigError, TrackerError
from fastslow.core.tracker import TrackedRun, Tracker
from fastslow.records.tracking import build, live
from fastslow.records.tracking.build import build_tracking, require_trackers, tracker_names
from fastslow.records.tracking.points import Points, may_repeat, series
from tests.support.paths import ROOT
from tests.support.tracking import tracking_of

DEMO = ROOT / "runs" / "reference" / "demo"


class Notes(Tracker):
    """Remembers its calls; fails while it is away."""

    def __init__(self) -> None:
        self.is_away = False
        self.steps: list[int] = []

    def log(self, metrics: Any, step: int, time: float, stage: int | None) -> None:
        if self.is_away:
            raise ConnectionError("http://me:secret@host is away")
        self.steps.append(step)


class Buffered(Notes):
    buffers = True


def config(*overrides: str) -> Any:
    return load_config([ROOT / "configs" / "tests" / "tiny.yaml"], overrides).config


def run_in(folder: Path) -> TrackedRun:
    return TrackedRun("demo", "0" * 32, folder, {})


def missed(folder: Path) -> Any:
    return json.loads((folder / "tracker.json").read_text())["missed"]


def test_one_that_fails_holds_up_no_other_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    well, away = Notes(), Notes()
    away.is_away = True
    tracking = tracking_of(run_in(tmp_path), away=away, well=well)
    with caplog.at_level(logging.WARNING, logger=live.__name__), tracking.run():
        for step in range(3):
            tracking.log({"a": 1.0}, step)
    assert (well.steps, away.steps, tracking.num_failures) == ([0, 1, 2], [], 3)
    assert missed(tmp_path) == ["away"]
    first, last = (record.message for record in caplog.records)
    assert "a call of away failed, got ConnectionError: http://[removed]@host is away" in first
    assert last.startswith("tracking: 3 calls of away failed.")


def test_only_those_that_missed_something_are_sent_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("run.json", "events.jsonl", "scores.jsonl"):
        (tmp_path / name).write_bytes((DEMO / name).read_bytes())
    (tmp_path / "metrics.jsonl").touch()
    well, back = Notes(), Notes()
    tracking = tracking_of(run_in(tmp_path), well=well, back=back)
    tracking.trackers[1].has_missed = True
    with tracking.run():
        pass
    assert well.steps == []
    assert len(back.steps) > 3
    assert missed(tmp_path) == []
    well.is_away = True
    with pytest.raises(TrackerError, match=r"\d+ calls of well failed, got ConnectionError"):
        tracking.send_run()
    assert missed(tmp_path) == ["well"]


def test_one_that_buffers_counts_as_late_until_the_run_ends(tmp_path: Path) -> None:
    tracking = tracking_of(run_in(tmp_path), slow=Buffered(), quick=Notes())
    with tracking.run():
        assert missed(tmp_path) == ["slow"]
    assert missed(tmp_path) == []


@pytest.mark.parametrize(
    ("written", "late"),
    [
        (True, ["tensorboard", "mlflow", "mlflow 2"]),  # as it was for one tracker
        (False, []),
        (["mlflow 2"], ["mlflow 2"]),
        ([], []),
        (3, []),
        ({"mlflow": 1}, []),
    ],
)
def test_who_missed_something_is_read_from_old_and_new_files(
    tmp_path: Path, written: Any, late: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "require_trackers", lambda config: None)
    sections = "[{kind: tensorboard}, {kind: mlflow}, {kind: mlflow, uri: 'http://host'}]"
    card = {"identity": "1" * 32, "missed": written}
    (tmp_path / "tracker.json").write_text(json.dumps(card))
    tracking = build_tracking(config(f"tracking={sections}"), tmp_path)
    assert [tracker.name for tracker in tracking.trackers if tracker.has_missed] == late
    assert {tracker.run.identity for tracker in tracking.trackers} == {"1" * 32}


def test_a_tracker_without_its_package_is_refused_where_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    one = config("tracking={kind: trackio}")
    with pytest.raises(
        ConfigError, match=r"^tracking\.kind: trackio needs .*'fastslow\[trackio\]'"
    ):
        require_trackers(one)
    several = config("tracking=[{kind: mlflow}, {kind: wandb}]")
    with pytest.raises(ConfigError, match=r"^tracking\.1\.kind: wandb needs .*fastslow\[wandb\]"):
        require_trackers(several)
    assert tracker_names(several) == ["mlflow", "wandb"]
    require_trackers(config("tracking=[{kind: mlflow}]"))


def test_points_that_come_again_are_taken_once_each() -> None:
    points = Points([("kl", 1, 0.0), ("kl", 1, 0.0), ("kl", 2, 0.5)])
    assert points.new({"kl": 0.0, "lr": 1.0}, 1, 0) == {"lr": 1.0}
    assert points.new({"kl": 0.0}, 1, 0) == {}
    assert points.new({"kl": 0.0}, 1, 0) == {"kl": 0.0}
    assert points.new({"kl": 0.25}, 2, 0) == {"kl": 0.25}


def test_a_row_of_the_matrix_has_each_point_once_however_often_it_comes() -> None:
    points = Points([("score/a", 1, 0.5)])
    for _ in range(2):
        assert points.new({"score/a": 0.5}, 1, None) == {}
    assert points.new({"score/a": 0.5}, 2, None) == {"score/a": 0.5}
    assert points.new({"score/a": 0.5}, 2, None) == {}
    assert may_repeat("score/a", time=1.0, since=2.0)
    assert not may_repeat("2-sums/slow/kl", time=1.0, since=2.0)
    assert may_repeat("2-sums/slow/kl", time=3.0, since=2.0)


def test_what_channels_report_is_named_after_its_stage() -> None:
    assert series("slow/kl", 1, "sums") == "2-sums/slow/kl"
    assert series("fast/spent", 0, "a") == "1-a/fast/spent"
    assert series("score/slow", 1, "sums") == "score/slow"
