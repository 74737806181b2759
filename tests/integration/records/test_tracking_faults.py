"""MLflow locked, gone or interrupted while a run goes on: nothing lost, nothing twice."""

import json
import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.loop import launch
from fastslow.loop.signals import Stopped
from fastslow.records.tracking.tracker import MlflowTracker
from tests.support.paths import ROOT
from tests.support.runs import TOY, newest, no_report, outcome, start

TRACKED = TOY.replace("tracking: null", "tracking: {kind: mlflow}")


def client(folder: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def tracked(folder: Path, experiment: str) -> dict[str, Any]:
    """What MLflow knows, by the name of each run: its status, parameters, and every point."""
    reader = client(folder)
    found = reader.get_experiment_by_name(experiment)
    runs = reader.search_runs([found.experiment_id])
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {
        run.info.run_name.replace(run.info.run_name, str(run.data.tags.get("stage", "whole"))): (
            run.info.status,
            {k: v for k, v in run.data.params.items() if k not in ("runs_dir", "model.name")},
            {
                name: [(m.step, m.value) for m in reader.get_metric_history(run.info.run_id, name)]
                for name in sorted(run.data.metrics)
            },
            sorted(file.path for file in reader.list_artifacts(run.info.run_id)),
        )
        for run in runs
    }


def tell(tracker: MlflowTracker, steps: range) -> None:
    with tracker.run("demo", {"seed": 1}), tracker.stage(0, "continent"):
        for step in steps:
            tracker.log({"slow/reward": step / 8}, step)


def test_a_locked_database_does_not_hold_the_run_up_and_gets_everything_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    undisturbed = tmp_path / "undisturbed"
    undisturbed.mkdir()
    tell(MlflowTracker(tmp_path, undisturbed, experiment="undisturbed"), range(4))
    database = sqlite3.connect(tmp_path / "mlflow.db")
    database.execute("BEGIN EXCLUSIVE")
    tracker = MlflowTracker(tmp_path, tmp_path, experiment="locked")
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, logger="fastslow.records.tracking.tracker"):
        tell(tracker, range(3))
    assert time.monotonic() - started < 10
    assert tracker.num_pending == 8  # two runs opened and closed, parameters, three points
    assert "database is locked" in caplog.text
    assert f"To send them once it is back: fastslow resume {tmp_path}" in caplog.text
    database.rollback()
    database.close()

    again = MlflowTracker(tmp_path, tmp_path, experiment="locked")
    tell(again, range(1, 4))  # from its last resume point, so two points come again
    assert (again.num_failures, again.num_pending) == (0, 0)
    assert tracked(tmp_path, "locked") == tracked(tmp_path, "undisturbed")


def test_a_database_that_was_removed_gets_the_whole_run_again(tmp_path: Path) -> None:
    tell(MlflowTracker(tmp_path, tmp_path, experiment="one"), range(3))
    before = tracked(tmp_path, "one")
    (tmp_path / "mlflow.db").rename(tmp_path / "lost.db")
    tell(MlflowTracker(tmp_path, tmp_path, experiment="one"), range(3))
    assert tracked(tmp_path, "one") == before


@pytest.mark.network
def test_a_server_that_is_gone_does_not_hold_the_run_up(tmp_path: Path) -> None:
    tracker = MlflowTracker(tmp_path, tmp_path, uri="http://127.0.0.1:9")
    started = time.monotonic()
    tell(tracker, range(3))
    assert time.monotonic() - started < 20
    assert tracker.num_pending == 8


KILLED = """
import os, signal, sys
from pathlib import Path
from fastslow.records.tracking.mlflow import MlflowStore
from fastslow.records.tracking.outbox import Outbox
from fastslow.records.tracking.tracker import MlflowTracker

folder, before = Path(sys.argv[1]), sys.argv[2]
owner = Outbox if before == "add" else MlflowStore
inner = getattr(owner, before)


def killed(self, message):
    if before == "add" and message["kind"] != "end":
        return inner(self, message)
    if before != "add":
        inner(self, message)
    os.kill(os.getpid(), signal.SIGKILL)


setattr(owner, before, killed)
tracker = MlflowTracker(folder, folder, experiment="killed")
with tracker.run("demo", {"seed": 1}), tracker.stage(0, "continent"):
    tracker.log({"slow/reward": 0.0}, 0)
"""


def kill_at(folder: Path, call: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), call],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


def test_a_stage_that_was_done_when_its_run_was_killed_does_not_stay_open(tmp_path: Path) -> None:
    kill_at(tmp_path, "add")
    again = MlflowTracker(tmp_path, tmp_path, experiment="killed")
    with again.run("demo", {"seed": 1}):
        """Resumed from the stage's resume point: it is not opened any more."""
    assert {status for status, *_ in tracked(tmp_path, "killed").values()} == {"FINISHED"}


@pytest.mark.parametrize("delivering", ["_made", "_metrics"])
def test_a_kill_between_delivering_and_writing_it_down_makes_nothing_twice(
    tmp_path: Path, delivering: str
) -> None:
    kill_at(tmp_path, delivering)
    again = MlflowTracker(tmp_path, tmp_path, experiment="killed")
    tell(again, range(3))
    assert (again.num_failures, again.num_pending) == (0, 0)
    found = tracked(tmp_path, "killed")
    assert set(found) == {"whole", "0"}
    assert found["0"][2] == {"slow/reward": [(0, 0.0), (1, 0.125), (2, 0.25)]}


def test_a_resumed_run_goes_on_in_its_mlflow_runs_and_says_nothing_twice(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, calls = FastSlowTrainer.update, iter(range(99))

    def interrupted(*args: Any) -> Any:
        if next(calls) == 5:  # twice: it goes back to the last border of a cycle
            raise Stopped(signal.SIGINT)
        return inner(*args)

    shape = [f"model.name={tiny_folder}", "fast=null"]
    undisturbed = start(tmp_path, [*shape, "name=undisturbed"], TRACKED)
    monkeypatch.setattr(FastSlowTrainer, "update", interrupted)
    with pytest.raises(Stopped):
        start(tmp_path, [*shape, "name=stopped"], TRACKED)
    resumed = launch.resume(newest(tmp_path), no_report)
    found, expected = (tracked(tmp_path / "runs", name) for name in ("stopped", "undisturbed"))
    found["whole"][1]["name"] = expected["whole"][1]["name"]
    assert found == expected
    assert outcome(resumed) == outcome(undisturbed)
    ids = json.loads((resumed / "tracker.json").read_text())
    assert {"run", "stage-0", "stage-1", "identity"} <= set(ids)
