"""Does a run that was killed end as if it had not been? SIGKILL at random moments, then resume.

    python -m benchmarks.kill_resume --kills 25                # prints 25/25; about 10 minutes
    python -m benchmarks.kill_resume --kills 3 --json out.json

A two-task run on a tiny model that is built in code, with both channels, every measure, a
plasticity probe and MLflow. One undisturbed run is made by a fresh `fastslow train`. Then every
kill has a run of its own: kill i of n comes at a random moment of the i-th of n equal parts of an
undisturbed run's duration, counted from when its folder appeared, and the run is resumed with
`fastslow resume`. A kill that came too late, after its run had ended, is counted and drawn again
over the whole duration.

Compared with the undisturbed run: every record but times, the score matrix, adapter and optimizer
of the last resume point and of every stage byte by byte, texts, random states, probe curves, and
what MLflow kept: the same points, none twice.

Importing the libraries takes longer than such a run. So the killed and resumed processes are forked
from one that has imported them and done nothing else; that they equal fresh ones is part of what is
compared.
"""

import argparse
import contextlib
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.figures import write_figures
from fastslow.core.seeds import named_random
from fastslow.records.events import (
    CycleEvent,
    EvaluationEvent,
    Event,
    RunEvent,
    ScoreRow,
    StepEvent,
)
from fastslow.records.jsonl import read_events, read_scores
from fastslow.records.lock import read_state
from fastslow.records.row_metrics import MINUTES
from fastslow.results.report.build import build_report
from fastslow.results.report.sections.metrics import Metrics

ROOT = Path(__file__).parents[1]
CONFIG = """
name: killed
stages:
  - {{task: first, cycles: 2}}
  - {{task: second, cycles: 1}}
tasks:
  first: {{use: "tests.support.toy_tasks:letters"}}
  second: {{use: "tests.support.toy_tasks:letters", params: {{wanted: "mnopqrst"}}}}
  held_out: {{use: "tests.support.toy_tasks:letters", params: {{wanted: "uvwxyz"}}}}
model: {{name: {model}, device: cpu}}
runs_dir: {runs}
cycle: {{optimizer_steps: 2, problems: 2, pool: 8}}
fast: {{kind: demos, population: 2, demonstrations: 2, metric_calls: 24, threads: 4}}
slow: {{kind: grpo, group: 4, lr: 0.02, adapter_policy: merge-then-new}}
evaluation: {{test_examples: 4, validation_examples: 4, kl_examples: 2, curve_examples: 2}}
probe: {{task: held_out, updates: 2, score_every: 1}}
tracking: {{kind: mlflow, uri: "sqlite:///{store}"}}
"""
LAST = "002-000"
"""The resume point at the end of the last stage."""
KEPT = (".safetensors", "texts.json", "slow.json", "random.json", "index.json")
"""Ends of the names of files that must be the same byte by byte."""


@dataclass(frozen=True)
class Kill:
    """One run that was killed and resumed."""

    moment: float
    """Seconds after its folder appeared."""
    too_late: int
    """Runs before it that had ended when the kill came."""
    point: str | None
    """Newest resume point when it was killed; None before the first."""
    scores: int
    """Score rows it had written."""
    differs: tuple[str, ...]
    """What is not as in the undisturbed run; empty if nothing."""


class Child:
    """`fastslow` with these words, in a fork of this process.

    Args:
        words: Of the command line.
        log: Where its output goes.
    """

    def __init__(self, words: Sequence[str], log: Path) -> None:
        assert threading.active_count() == 1, threading.enumerate()  # a fork takes one along
        self.status: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            _become(words, log)

    @property
    def is_alive(self) -> bool:
        """Whether it still works."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = status if pid else None
        return self.status is None

    def kill(self) -> bool:
        """Kill it; whether it was this kill that ended it."""
        if self.is_alive:
            os.kill(self.pid, signal.SIGKILL)
            self.status = os.waitpid(self.pid, 0)[1]
        return self.status is not None and os.WIFSIGNALED(self.status)


def _become(words: Sequence[str], log: Path) -> None:
    """Run the command line in this process and leave it."""
    from fastslow.cli.main import main

    code = 70
    try:
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        code = main(words)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def leftovers(run: Path) -> dict[str, Any]:
    """What a run leaves behind, but for times and its own name."""
    point = max((run / "resume").iterdir(), key=lambda path: path.name)
    folders = (point, run / "stages", run / "probe", run / "rollouts")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    report = build_report(run)
    return {
        "state": read_state(run),
        "scores": [replace(row, run="") for row in read_scores(run / "scores.jsonl")],
        "events": [_timeless(event) for event in read_events(run / "events.jsonl")],
        "metrics": [_timeless(event) for event in read_events(run / "metrics.jsonl")],
        "matrix": [[cell.score for cell in row] for row in report.cells],
        "measures": {
            name: metric.value for name, metric in report.section(Metrics).metrics.items()
        },
        "probe": [
            {k: v for k, v in json.loads(path.read_text()).items() if k != "seconds"}
            for path in sorted((run / "probe").rglob("*.json"))
        ],
        **{
            path.relative_to(run).as_posix(): path.read_bytes()
            for path in files
            if path.name.endswith(KEPT) or path.suffix == ".txt"
        },
    }


def _timeless(event: Event | ScoreRow) -> Any:
    if isinstance(event, StepEvent | CycleEvent | EvaluationEvent):
        event = replace(event, time=None)
    if isinstance(event, CycleEvent):
        return replace(event, seconds={})
    if isinstance(event, RunEvent):
        return replace(event, seconds=0.0, saving_seconds=None, peak_gb=None)
    timed: Any = event
    return replace(timed, seconds=0.0) if hasattr(event, "seconds") else event


def tracked(store: Path, run: Path) -> dict[str, Any]:
    """What MLflow kept of a run: for the sequence and each stage its status and every point.

    But for the minutes that it took.
    """
    from mlflow import MlflowClient

    client, ids = MlflowClient(f"sqlite:///{store}"), json.loads((run / "tracker.json").read_text())
    experiment = client.get_experiment_by_name("killed")
    assert experiment is not None
    own = f"tags.`fastslow.id` LIKE '{ids['identity']}/%'"
    return {
        one.data.tags["fastslow.id"].partition("/")[2]: (
            one.info.status,
            {
                name: [(p.step, p.value) for p in client.get_metric_history(one.info.run_id, name)]
                for name in sorted(one.data.metrics.keys() - {MINUTES})
            },
        )
        for one in client.search_runs([experiment.experiment_id], own)
    }


def new_run(folder: Path) -> Path | None:
    """The run in a case's folder, once it is complete enough to be resumed."""
    return next((card.parent for card in (folder / "runs").glob("*/run.json")), None)


def make_case(folder: Path, model: Path, store: Path) -> list[str]:
    """Write the configuration of a run of its own, with a copy of `store`; the words to start it.

    A copy, since making a store takes MLflow seconds.
    """
    folder.mkdir()
    shutil.copy(store, folder / "mlflow.db")
    text = CONFIG.format(model=model, runs=folder / "runs", store=folder / "mlflow.db")
    (folder / "killed.yaml").write_text(text)
    return ["train", str(folder / "killed.yaml")]


class Trial:
    """Kills, resumes and compares one run; a step at a time, so that some run side by side.

    Args:
        folder: Where its runs are made.
        model: The tiny model.
        store: MLflow store without any run.
        expected: What the undisturbed run left behind.
    """

    def __init__(self, folder: Path, model: Path, store: Path, expected: dict[str, Any]) -> None:
        self.folder, self.model, self.store, self.expected = folder, model, store, expected

    def run(self, part: int, parts: int, duration: float, seed: int) -> Iterator[Kill | None]:
        """Give None while it waits, at last the kill.

        Args:
            part: Which part of the duration the kill falls into, from 0.
            parts: How many parts there are.
            duration: Seconds of an undisturbed run.
            seed: Of the moment.
        """
        drawn = named_random(seed, "kill", part)
        moment, too_late = duration * (part + drawn.random()) / parts, 0
        while True:
            folder = self.folder / f"{part:02d}-{too_late}"
            child = Child(make_case(folder, self.model, self.store), folder / "train.log")
            while (run := new_run(folder)) is None and child.is_alive:
                yield None
            began = time.monotonic()
            while time.monotonic() - began < moment and child.is_alive:
                yield None
            if child.kill():
                break
            assert os.waitstatus_to_exitcode(child.status or 0) == 0, folder / "train.log"
            too_late, moment = too_late + 1, duration * drawn.random()
        assert run is not None
        points = sorted((run / "resume").glob("[0-9]*"))
        rows = len(read_scores(run / "scores.jsonl")) if (run / "scores.jsonl").exists() else 0
        died = read_state(run)
        child = Child(["resume", str(run)], folder / "resume.log")
        while child.is_alive:
            yield None
        # all that is left after the end are the report, and what MLflow is told
        allowed = ("died", "finished") if points and points[-1].name == LAST else ("died",)
        differs = [] if died in allowed else [f"state after the kill: {died}"]
        if code := os.waitstatus_to_exitcode(child.status or 0):
            differs.append(f"resume ended with {code}, see {folder / 'resume.log'}")
        else:
            found = everything(run, folder / "mlflow.db")
            names = sorted({*found, *self.expected})
            differs += [name for name in names if found.get(name) != self.expected.get(name)]
        yield Kill(moment, too_late, points[-1].name if points else None, rows, tuple(differs))


def everything(run: Path, store: Path) -> dict[str, Any]:
    """All that is compared, looked at in a process of its own: this one must not start threads."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            found = {**leftovers(run), "mlflow": tracked(store, run)}
            shown = {name: _digest(value) for name, value in found.items()}
            os.write(writer, json.dumps(shown).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    made: dict[str, Any] = json.loads(text)
    return made


def _digest(value: Any) -> str:
    import hashlib

    text = value if isinstance(value, bytes) else repr(value).encode()
    return hashlib.sha256(text).hexdigest()


def tiny_model(folder: Path) -> Path:
    """Make the tiny model; in a process of its own, because writing it starts threads."""
    code = "import sys; from pathlib import Path; from tests.support.tiny import save_tiny as s"
    words = [sys.executable, "-W", "ignore", "-c", f"{code}; s(Path(sys.argv[1]))", str(folder)]
    subprocess.run(words, check=True, capture_output=True)
    return folder


def empty_store(path: Path) -> Path:
    """Make an MLflow store with no run in it."""
    code = "import sys; from mlflow import MlflowClient as C; C(sys.argv[1]).search_experiments()"
    words = [sys.executable, "-W", "ignore", "-c", code, f"sqlite:///{path}"]
    subprocess.run(words, check=True, capture_output=True)
    return path


def undisturbed(folder: Path, model: Path, store: Path) -> tuple[dict[str, Any], float]:
    """What a run leaves behind that nothing disturbs, made by a fresh interpreter; its seconds."""
    words = [sys.executable, "-m", "fastslow", *make_case(folder, model, store)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = new_run(folder)
    assert run is not None
    return everything(run, folder / "mlflow.db"), lifetime(run)


def lifetime(run: Path) -> float:
    """Seconds from when a run's folder was made to its end."""
    return (run / "run.json").stat().st_mtime - (run / "config.json").stat().st_mtime


def warm_up() -> None:
    """Import what a run imports, and nothing more: forks then start at once."""
    import datasets  # noqa: F401
    import dspy  # noqa: F401
    import mlflow.tracking  # noqa: F401
    import torch
    import trl  # noqa: F401
    from trl import GRPOTrainer  # noqa: F401

    import fastslow.channels.fast.channel
    import fastslow.channels.fast.optimizers.demos
    import fastslow.channels.slow.channel
    import fastslow.channels.slow.sft
    import fastslow.loop.launch
    import fastslow.results.report  # noqa: F401

    torch.set_num_threads(1)
    gc.freeze()


def kill_all(folder: Path, kills: int, workers: int, seed: int) -> Iterator[Kill]:
    """Every kill, as its run has been compared."""
    model = tiny_model(folder / "model")
    store = empty_store(folder / "empty.db")
    expected, duration = undisturbed(folder / "undisturbed", model, store)
    trial = Trial(folder, model, store, expected)
    if workers > 1:
        duration = timed(folder, model, store, workers)
    print(f"an undisturbed run takes {duration:.1f} s with {workers} side by side", flush=True)
    waiting = deque(trial.run(part, kills, duration, seed) for part in range(kills))
    working: list[Iterator[Kill | None]] = []
    while waiting or working:
        while waiting and len(working) < workers:
            working.append(waiting.popleft())
        for one in working.copy():
            if (kill := next(one)) is not None:
                working.remove(one)
                yield kill
        time.sleep(0.01)


def timed(folder: Path, model: Path, store: Path, workers: int) -> float:
    """Seconds from a run's folder to its end, with as many side by side as later."""
    children = []
    for worker in range(workers):
        place = folder / f"timed-{worker}"
        words = make_case(place, model, store)
        children.append((place, Child(words, place / "train.log")))
    while any(child.is_alive for _, child in children):
        time.sleep(0.01)
    seconds = []
    for place, child in children:
        assert child.status == 0, place / "train.log"
        run = new_run(place)
        assert run is not None
        seconds.append(lifetime(run))
    return sum(seconds) / workers


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, resume, compare, and say how many came out the same; 1 if one did not."""
    parser = argparse.ArgumentParser(description="SIGKILL at random moments, then resume.")
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--workers", type=int, default=2, help="Runs side by side.")
    parser.add_argument("--seed", type=int, default=0, help="Of the moments.")
    parser.add_argument("--json", type=Path, help="Where to write the figures.")
    options = parser.parse_args(arguments)
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    started, done = time.monotonic(), list[Kill]()
    warm_up()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        for kill in kill_all(Path(place), options.kills, options.workers, options.seed):
            done.append(kill)
            said = "identical" if not kill.differs else f"DIFFERS in {', '.join(kill.differs)}"
            print(
                f"{len(done)}/{options.kills}: killed after {kill.moment:.2f} s at resume point "
                f"{kill.point}, {kill.scores} score rows; resumed: {said}",
                flush=True,
            )
    same = sum(not kill.differs for kill in done)
    too_late = sum(kill.too_late for kill in done)
    print(f"{too_late} kills came after the end and were drawn again")
    print(f"{same}/{options.kills}")
    if options.json:
        figures = {
            "kills": options.kills,
            "identical": same,
            "too_late": too_late,
            "seconds": time.monotonic() - started,
            "each": [asdict(kill) for kill in done],
        }
        write_figures(options.json, figures, "kill_resume", arguments)
    return 0 if same == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
