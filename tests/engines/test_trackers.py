"""TensorBoard, Trackio and W&B themselves: killed, resumed and sent again, each point is once.

A tracker is skipped where its package is absent: `pip install 'fastslow[trackio]'` and so on.
"""

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from fastslow.cli.main import main
from fastslow.records.jsonl import read_events
from tests.support.paths import ROOT
from tests.support.runs import TOY, newest

Points = Counter[tuple[str, int]]
"""How often a name has a value at a step."""


def tensorboard_points(runs: Path) -> Points:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    [run] = (runs / "tensorboard").iterdir()
    files = EventAccumulator(str(run), {"scalars": 0}).Reload()
    names = files.Tags()["scalars"]
    return Counter((name, point.step) for name in names for point in files.Scalars(name))


def trackio_points(runs: Path) -> Points:
    script = (
        "import json, trackio\nfrom trackio.sqlite_storage import SQLiteStorage\n"
        "[run] = trackio.Api().runs('toy')\n"
        "print(json.dumps(SQLiteStorage.get_logs('toy', run.name, run_id=run.id)))"
    )
    variables = os.environ | {"TRACKIO_DIR": str(runs / "trackio")}
    words = [sys.executable, "-c", script]
    answer = subprocess.run(words, env=variables, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    calls = json.loads(answer.stdout)
    return Counter((name, c["step"]) for c in calls for name in c.keys() - {"timestamp", "step"})


def wandb_points(runs: Path) -> Points:
    """As W&B's server has them: a step of its own that comes again is ignored."""
    from fastslow.records.tracking.wandb import history

    points: Points = Counter()
    last = -1.0
    for row in history(runs, "*"):
        if row["_step"] > last:
            last = row["_step"]
            [axis] = [name for name in row if name == "row" or name.endswith("/step")]
            names = [name for name in row if name not in (axis, "time") and name[0] != "_"]
            points.update((name, int(row[axis])) for name in names)
    return points


READERS: Mapping[str, Callable[[Path], Points]] = {
    "tensorboard": tensorboard_points,
    "trackio": trackio_points,
    "wandb": wandb_points,
}
SECTIONS = {
    "tensorboard": "{kind: tensorboard}",
    "trackio": "{kind: trackio}",
    "wandb": "{kind: wandb, mode: offline}",
}
KILLER = """
import os, signal, sys
from itertools import count
from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.cli.main import main

inner, calls = FastSlowTrainer.update, count()

def update(*args):
    if next(calls) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(*args)

FastSlowTrainer.update = update
main(sys.argv[1:])
"""


def python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "TRACKIO"))}
    variables = kept | {"PYTHONPATH": str(ROOT), "HOME": str(folder / "home")}
    variables |= {"TRACKIO_DIR": str(folder / "runs" / "trackio")}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module", params=READERS)
def killed(
    request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, str]:
    """A tracker, and a run that was killed in a stage and resumed, with all that it printed."""
    kind: str = request.param
    if importlib.util.find_spec(kind) is None:
        pytest.skip(f"{kind} is not installed: pip install 'fastslow[{kind}]'")
    folder = tmp_path_factory.mktemp(kind)
    text = TOY.replace("tracking: null", f"tracking: [{SECTIONS[kind]}, {{kind: mlflow}}]")
    (folder / "toy.yaml").write_text(text)
    first = python(folder, "-c", KILLER, "train", "toy.yaml", f"model.name={tiny_folder}")
    assert first.returncode == -signal.SIGKILL, first.stderr[-2000:]
    run = newest(folder)
    second = python(folder, "-m", "fastslow", "resume", str(run))
    assert second.returncode == 0, second.stderr[-2000:]
    return kind, run, first.stdout + first.stderr + second.stdout + second.stderr


def expected(run: Path) -> Points:
    """Every point that the records of a run have."""
    from fastslow.records.tracking.points import series
    from fastslow.records.tracking.records import read_run_records

    records = read_run_records(run)
    points: Points = Counter()
    for row in range(len(records.stage_tasks) + 1):
        points.update((name, row) for metrics, _ in records.row(row) for name in metrics)
    for stage in records.stages():
        for event in stage.events:
            step = getattr(event, "step", event.cycle)
            values = {n: v for n, v in event.metrics.items() if v == v}
            points.update((series(n, stage.index, stage.task), step) for n in values)
    return points


def test_after_a_kill_and_a_resume_every_point_is_there_once(
    killed: tuple[str, Path, str],
) -> None:
    kind, run, printed = killed
    assert json.loads((run / "tracker.json").read_text())["missed"] == [], printed[-2000:]
    assert len(read_events(run / "metrics.jsonl")) == 6
    assert READERS[kind](run.parent) == expected(run)


def test_sending_the_run_again_makes_nothing_twice(killed: tuple[str, Path, str]) -> None:
    kind, run, _ = killed
    again = python(run.parent.parent, "-m", "fastslow", "track", str(run))
    assert again.returncode == 0, again.stderr[-2000:]
    assert again.stdout.startswith(f"sent to {kind}, mlflow: ")
    assert READERS[kind](run.parent) == expected(run)


def test_what_it_missed_is_sent_from_the_records(
    killed: tuple[str, Path, str], tmp_path: Path
) -> None:
    """Its files were lost; the other tracker's were not."""
    import shutil

    kind, run, _ = killed
    copy = Path(shutil.copytree(run.parent.parent, tmp_path / "copy"))
    shutil.rmtree(copy / "runs" / kind)
    sent = python(copy, "-m", "fastslow", "track", f"runs/{run.name}")
    assert sent.returncode == 0, sent.stderr[-2000:]
    assert READERS[kind](copy / "runs") == expected(run)


def test_nothing_of_this_machine_is_in_what_it_keeps(killed: tuple[str, Path, str]) -> None:
    kind, run, printed = killed
    named = [socket.gethostname()] if len(socket.gethostname()) > 3 else []
    personal = [*named, str(sys.executable), "GPU_", "git@", "PYTHONPATH"]
    for path in (run.parent / kind).rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert [word for word in personal if word.encode() in content] == [], path
    assert "wandb:" not in printed
    assert "* Trackio" not in printed


def test_wandb_without_a_key_stops_before_any_work_and_asks_for_none(
    tiny_folder: Path, tmp_path: Path
) -> None:
    if importlib.util.find_spec("wandb") is None:
        pytest.skip("wandb is not installed: pip install 'fastslow[wandb]'")
    (tmp_path / "toy.yaml").write_text(TOY.replace("tracking: null", "tracking: {kind: wandb}"))
    words = ("-m", "fastslow", "train", "toy.yaml", f"model.name={tiny_folder}")
    answer = python(tmp_path, *words)
    assert answer.returncode == 2
    assert answer.stderr.startswith("tracking: the tracker wandb has no key.")
    assert not (tmp_path / "runs").exists()


@pytest.mark.network
def test_wandb_without_a_network_does_not_hold_the_run_up(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("wandb") is None:
        pytest.skip("wandb is not installed: pip install 'fastslow[wandb]'")
    light = ("fast=null", "evaluation.kl_examples=0", "evaluation.neutral=false", "stages=[first]")
    text = TOY.replace("tracking: null", "tracking: [{kind: wandb}, {kind: mlflow}]")
    (tmp_path / "toy.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    overrides: Any = [*light[:3], "stages=[{task: first, cycles: 1}]"]
    assert main(["train", "toy.yaml", f"model.name={tiny_folder}", *overrides]) == 0
    assert json.loads((newest(tmp_path) / "tracker.json").read_text())["missed"] == ["wandb"]
