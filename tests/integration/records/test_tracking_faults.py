"""MLflow locked, gone or interrupted during a run: nothing lost, nothing twice."""

import contextlib
import json
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.cli.main import main
from fastslow.core.tracker import TrackedRun, Tracker
from fastslow.loop import launch
from fastslow.loop.signals import Stopped
from fastslow.records.row_metrics import MINUTES
from fastslow.records.tracking import live
from fastslow.records.tracking.live import Tracking
from fastslow.records.tracking.mlflow import MlflowTracker
from fastslow.results.report import write_report
from tests.support.paths import ROOT
from tests.support.run_folder import without_seal
from tests.support.runs import TOY, newest, outcome, start
from tests.support.tracking import tracking_of

TRACKED = TOY.replace("tracking: null", "tracking: {kind: mlflow}")


def client(folder: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def tracked(folder: Path, experiment: str) -> dict[str, Any]:
    """What MLflow knows, by the name of each run: its status, parameters, and every point.

    But for the minutes that it took.
    """
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
                for name in sorted(run.data.metrics.keys() - {MINUTES})
            },
            sorted(file.path for file in reader.list_artifacts(run.info.run_id)),
        )
        for run in runs
    }


def tell(tracker: Tracker, folder: Path, steps: range) -> Tracking:
    live = tracking_of(TrackedRun("demo", "0" * 32, folder, {"seed": 1}), mlflow=tracker)
    with live.run(), live.stage(0, "continent"):
        for step in steps:
            live.log({"slow/reward": step / 8}, step)
    return live


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    return start(folder, shape(tiny_folder, "undisturbed"), TRACKED, write_report)


def shape(tiny_folder: Path, name: str) -> list[str]:
    return [f"model.name={tiny_folder}", f"name={name}"]


def in_mlflow(run: Path, name: str) -> dict[str, Any]:
    """What MLflow knows of a run, but for its name."""
    runs = tracked(run.parent, name)
    assert runs["whole"][1].pop("name") == name
    return runs


@contextlib.contextmanager
def locked_database(folder: Path) -> Iterator[None]:
    """Another program holds MLflow's SQLite file."""
    folder.mkdir(parents=True, exist_ok=True)
    MlflowTracker(folder).prepare()
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database:
        database.execute("BEGIN EXCLUSIVE")
        yield
        database.rollback()


def test_a_locked_database_does_not_hold_the_run_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    started = time.monotonic()
    with locked_database(tmp_path), caplog.at_level(logging.WARNING, logger=live.__name__):
        tracking = tell(MlflowTracker(tmp_path, experiment="locked"), tmp_path, range(3))
    assert time.monotonic() - started < 60
    assert tracking.num_failures == 7  # two runs opened and closed, three points
    assert "database is locked" in caplog.text
    assert f"To send what was missed: fastslow track {tmp_path}" in caplog.text


@pytest.mark.parametrize("command", ["track", "resume"])
def test_what_a_tracker_missed_is_sent_from_the_records(
    undisturbed: Path, tmp_path: Path, tiny_folder: Path, command: str
) -> None:
    with locked_database(tmp_path / "runs"):
        run = start(tmp_path, shape(tiny_folder, "missed"), TRACKED, write_report)
    assert main([command, str(run)]) == 0
    found, expected = in_mlflow(run, "missed"), in_mlflow(undisturbed, "undisturbed")
    assert set(found) == {"whole", "1", "2"}
    assert found == expected
    assert json.loads((run / "tracker.json").read_text())["missed"] == []
    assert main([command, str(run)]) == 0  # once more changes nothing
    assert in_mlflow(run, "missed") == expected


def test_sending_a_run_again_sends_nothing_twice(undisturbed: Path) -> None:
    before = tracked(undisturbed.parent, "undisturbed")
    assert main(["track", str(undisturbed)]) == 0
    assert tracked(undisturbed.parent, "undisturbed") == before


def test_sending_to_a_tracker_that_is_away_says_so(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = without_seal(shutil.copytree(undisturbed, tmp_path / "runs" / undisturbed.name))
    config = json.loads((run / "config.json").read_text())
    config["runs_dir"] = str(run.parent)
    (run / "config.json").write_text(json.dumps(config))
    with locked_database(run.parent):
        assert main(["track", "--trust", str(run)]) == 1
    assert "calls of mlflow failed, got OSError:" in capsys.readouterr().err
    assert main(["track", "--trust", str(run)]) == 0


@pytest.mark.network
def test_a_server_that_is_gone_does_not_hold_the_run_up(tmp_path: Path) -> None:
    started = time.monotonic()
    tracking = tell(MlflowTracker(tmp_path, uri="http://127.0.0.1:9"), tmp_path, range(3))
    assert time.monotonic() - started < 60
    assert tracking.num_failures == 7


KILLED = """
import os, signal, sys
from pathlib import Path
from mlflow import MlflowClient
from fastslow.core.tracker import TrackedRun
from fastslow.records.tracking.mlflow import MlflowTracker
from tests.support.tracking import tracking_of

folder, call = Path(sys.argv[1]), sys.argv[2]
inner, calls = getattr(MlflowClient, call), iter(range(9))


def killed(*args, **kwargs):
    inner(*args, **kwargs)
    if call != "log_batch" or next(calls):  # the first one has the parameters
        os.kill(os.getpid(), signal.SIGKILL)


setattr(MlflowClient, call, killed)
run = TrackedRun("demo", "0" * 32, folder, {"seed": 1})
live = tracking_of(run, mlflow=MlflowTracker(folder))
with live.run(), live.stage(0, "continent"):
    live.log({"slow/reward": 0.0}, 0)
"""


def kill_at(folder: Path, call: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", KILLED, str(folder), call],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL


def test_a_stage_that_was_complete_when_its_run_was_killed_does_not_stay_open(
    tmp_path: Path,
) -> None:
    kill_at(tmp_path, "log_batch")
    run = TrackedRun("demo", "0" * 32, tmp_path, {"seed": 1})
    live = tracking_of(run, mlflow=MlflowTracker(tmp_path))
    with live.run():
        """Resumed from the stage's resume point: it is not opened any more."""
    assert {status for status, *_ in tracked(tmp_path, "fastslow").values()} == {"FINISHED"}


@pytest.mark.parametrize("call", ["create_run", "log_batch"])
def test_a_kill_right_after_a_call_of_mlflow_makes_nothing_twice(tmp_path: Path, call: str) -> None:
    kill_at(tmp_path, call)
    assert tell(MlflowTracker(tmp_path), tmp_path, range(3)).num_failures == 0
    found = tracked(tmp_path, "fastslow")
    assert set(found) == {"whole", "1"}
    assert found["1"][2] == {"slow/reward": [(0, 0.0), (1, 0.125), (2, 0.25)]}


def test_a_resumed_run_continues_in_its_mlflow_runs_and_says_nothing_twice(
    tmp_path: Path, tiny_folder: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, calls = FastSlowTrainer.update, iter(range(99))

    def interrupted(*args: Any) -> Any:
        if next(calls) == 5:  # twice: it goes back to the last border of a cycle
            raise Stopped(signal.SIGINT)
        return inner(*args)

    monkeypatch.setattr(FastSlowTrainer, "update", interrupted)
    with pytest.raises(Stopped):
        start(tmp_path, shape(tiny_folder, "stopped"), TRACKED, write_report)
    resumed = launch.resume(newest(tmp_path), write_report)
    assert in_mlflow(resumed, "stopped") == in_mlflow(undisturbed, "undisturbed")
    assert outcome(resumed) == outcome(undisturbed)
