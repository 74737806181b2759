"""A tracker of the user's own: one file outside the package."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.cli.main import main
from fastslow.config.loading.load import load_config
from fastslow.core.errors import ConfigError
from fastslow.loop import launch
from fastslow.loop.signals import Stopped
from fastslow.results.report import write_report
from tests.support.runs import TOY, newest, start

NOTEBOOK = '''
"""Writes lines into a notebook."""

import json
from pathlib import Path

from fastslow.plugins import Tracker, TrackerConfig, tracker


class Notebook(TrackerConfig):
    file: str
    """Where to write."""


class NotebookTracker(Tracker):
    def __init__(self, file):
        self.file = Path(file)

    def begin(self, run):
        self.write("begin", run.name, run.identity, run.config["seed"])

    def log(self, metrics, step, time, stage):
        self.write("log", stage, step, metrics)

    def artifact(self, path, stage):
        self.write("artifact", stage, path.name)

    def write(self, *values):
        with self.file.open("a") as file:
            file.write(json.dumps(values) + "\\n")


@tracker(name="notebook", source="made here")
def notebook(config: Notebook) -> Tracker:
    """A notebook."""
    return NotebookTracker(config.file)
'''


@pytest.fixture
def notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "my_notebook.py").write_text(NOTEBOOK)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    return tmp_path / "notebook.jsonl"


def text(notebook: Path, **params: object) -> str:
    use = {"kind": "custom", "use": "my_notebook:notebook"}
    written = {**use, "params": {"file": str(notebook), **params}}
    return TOY.replace("tracking: null", f"tracking: {json.dumps(written)}")


def lines(notebook: Path) -> list[Any]:
    return [json.loads(line) for line in notebook.read_text().splitlines()]


def points(notebook: Path) -> set[tuple[object, ...]]:
    """Stage, step and name of all that was logged."""
    return {
        (stage, step, name)
        for kind, stage, step, metrics in (line for line in lines(notebook) if line[0] == "log")
        for name in metrics
    }


def test_it_gets_the_metrics_of_all_stages_also_after_a_stop_and_a_resume(
    notebook: Path, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(tmp_path / "a", [f"model.name={tiny_folder}"], text(notebook), finish=write_report)
    assert json.loads((run / "run.json").read_text())["tracker"] == "notebook"
    expected = points(notebook)
    assert {(None, 0, "score/first"), (0, 1, "slow/reward"), (None, 1, "score/first")} < expected
    assert {(1, 2, "slow/reward"), (None, 2, "score/second"), (None, 2, "tokens")} < expected
    assert {(None, 2, "kl_fst/first"), (None, 2, "forgetting_chaudhry")} < expected
    rows = [tuple(line[2:]) for line in lines(notebook) if line[0] == "log" and line[1] is None]
    names = [(row, name) for row, metrics in rows for name in metrics]
    assert len(names) == len(set(names))  # each is told once
    artifacts = [line[1:] for line in lines(notebook) if line[0] == "artifact"]
    assert [0, "000-first"] in artifacts
    assert [None, "report.json"] in artifacts

    inner, calls = FastSlowTrainer.update, iter(range(99))

    def interrupted(*args: Any) -> Any:
        if next(calls) == 5:
            raise Stopped(signal.SIGINT)
        return inner(*args)

    notebook.unlink()
    with monkeypatch.context() as patch:
        patch.setattr(FastSlowTrainer, "update", interrupted)
        with pytest.raises(Stopped):
            start(tmp_path / "b", [f"model.name={tiny_folder}"], text(notebook))
    assert points(notebook) < expected
    resumed = launch.resume(newest(tmp_path / "b"), write_report)
    assert points(notebook) == expected
    begun = [line[1:] for line in lines(notebook) if line[0] == "begin"]
    assert begun[0] == begun[1]
    assert begun[0][0] == resumed.name

    notebook.unlink()
    assert main(["track", str(resumed)]) == 0
    assert points(notebook) == expected
    assert [line[1:] for line in lines(notebook) if line[0] == "artifact"] == artifacts


def test_its_parameters_are_checked_where_they_are_written(notebook: Path, tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(text(notebook, fiel="x"))
    with pytest.raises(ConfigError, match=r"toy\.yaml:\d+: .*fiel"):
        load_config([tmp_path / "toy.yaml"], [])


def test_one_that_raises_at_everything_stops_no_run(
    notebook: Path, tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    light = ("fast=null", "evaluation.kl_examples=0", "evaluation.neutral=false")
    notebook.mkdir()
    run = start(tmp_path / "a", [f"model.name={tiny_folder}", *light], text(notebook))
    assert json.loads((run / "run.json").read_text())["state"] == "finished"
    assert main(["track", str(run)]) == 1
    assert "got IsADirectoryError" in capsys.readouterr().err
    notebook.rmdir()
    assert main(["track", str(run)]) == 0
    assert (1, 2, "slow/reward") in points(notebook)
