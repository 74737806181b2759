"""Runs that train, are killed and are resumed."""

import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.killing.folders import digests, faults, leftovers, tracked
from benchmarks.killing.process import Child, in_fork, last_line
from fastslow.core.seeds import named_random
from fastslow.records.jsonl import read_scores
from fastslow.records.lock import read_state

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
    """What is not as in the undisturbed run, and what was half written; empty if nothing."""

    def __str__(self) -> str:
        result = f"DIFFERS in {', '.join(self.differs)}" if self.differs else "identical"
        place = f"at resume point {self.point}, {self.scores} score rows"
        return f"killed after {self.moment:.2f} s {place}; resumed: {result}"


@dataclass(frozen=True)
class Trial:
    """A run to be made over and over."""

    folder: Path
    """Where runs are made."""
    model: Path
    """The tiny model."""
    store: Path
    """MLflow store without any run."""

    def case(self, name: str) -> tuple[Path, list[str]]:
        """A folder with the configuration of a run of its own; the words that start it.

        It has a copy of the store, since making one takes MLflow seconds.
        """
        folder = self.folder / name
        folder.mkdir()
        shutil.copy(self.store, folder / "mlflow.db")
        text = CONFIG.format(model=self.model, runs=folder / "runs", store=folder / "mlflow.db")
        (folder / "killed.yaml").write_text(text)
        return folder, ["train", str(folder / "killed.yaml")]

    def undisturbed(self, *, fresh: bool) -> tuple[Path, dict[str, str]]:
        """Make a run that nothing disturbs; its case, and what it leaves.

        `fresh` has an interpreter make it that starts from nothing.
        """
        folder, words = self.case("undisturbed")
        if fresh:
            command = [sys.executable, "-m", "fastslow", *words]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        else:
            assert Child(words, folder / "train.log").wait() == 0, folder / "train.log"
        return folder, everything(folder)

    def seconds(self, workers: int) -> float:
        """Seconds from a run's folder to its end, with so many side by side."""
        cases = [self.case(f"timed-{worker}") for worker in range(workers)]
        children = [Child(words, folder / "train.log") for folder, words in cases]
        assert [child.wait() for child in children] == [0] * workers, self.folder
        return sum(lifetime(folder) for folder, _ in cases) / workers

    def kill(
        self, expected: Mapping[str, str], moments: tuple[int, int, float], seed: int
    ) -> Iterator[Kill | None]:
        """Give None while it waits, at last the kill; a step at a time, so that some can wait.

        Args:
            expected: What the undisturbed run left.
            moments: The part of the duration that the kill falls into, from 0; how many parts there
                are; and the duration in seconds.
            seed: Of the moment.
        """
        part, parts, duration = moments
        draws = named_random(seed, "kill", part)
        moment, too_late = duration * (part + draws.random()) / parts, 0
        while True:
            folder, words = self.case(f"{part:02d}-{too_late}")
            child = Child(words, folder / "train.log")
            while (run := run_of(folder)) is None and child.is_alive:
                yield None
            began = time.monotonic()
            while time.monotonic() - began < moment and child.is_alive:
                yield None
            if child.kill():
                break
            assert child.code == 0, folder / "train.log"
            too_late, moment = too_late + 1, duration * draws.random()
        assert run is not None
        points = sorted((run / "resume").glob("[0-9]*"))
        rows = len(read_scores(run / "scores.jsonl")) if (run / "scores.jsonl").exists() else 0
        differs = [f"right after the kill: {fault}" for fault in faults(run)]
        state = read_state(run)
        # all that is left after the end are the report, and what MLflow is told
        allowed = ("died", "finished") if points and points[-1].name == LAST else ("died",)
        differs += [] if state in allowed else [f"state after the kill: {state}"]
        child = Child(["resume", str(run)], folder / "resume.log")
        while child.is_alive:
            yield None
        if child.code:
            differs.append(f"resume ended with {child.code}: {last_line(folder / 'resume.log')}")
        else:
            differs += differences(everything(folder), expected)
        yield Kill(moment, too_late, points[-1].name if points else None, rows, tuple(differs))

    def kills(
        self, expected: Mapping[str, str], count: int, workers: int, seed: int
    ) -> Iterator[Kill]:
        """So many kills, each as its run has been compared."""
        duration = lifetime(self.folder / "undisturbed") if workers == 1 else self.seconds(workers)
        print(f"train: a run takes {duration:.1f} s with {workers} side by side", flush=True)
        waiting = deque(self.kill(expected, (i, count, duration), seed) for i in range(count))
        working: list[Iterator[Kill | None]] = []
        while waiting or working:
            while waiting and len(working) < workers:
                working.append(waiting.popleft())
            for trial in working.copy():
                if (kill := next(trial)) is not None:
                    working.remove(trial)
                    yield kill
            time.sleep(0.01)


def run_of(folder: Path) -> Path | None:
    """The run in a case's folder, once it is there."""
    return next((card.parent for card in (folder / "runs").glob("[0-9]*/run.json")), None)


def lifetime(folder: Path) -> float:
    """Seconds from when the folder of a case's run was made to its end."""
    run = run_of(folder)
    assert run is not None
    return (run / "run.json").stat().st_mtime - (run / "config.json").stat().st_mtime


def everything(folder: Path) -> dict[str, str]:
    """Digests of all that is compared of the run of a case."""
    run = run_of(folder)
    assert run is not None
    digest: dict[str, str] = in_fork(
        lambda: digests({**leftovers(run), "mlflow": tracked(folder / "mlflow.db", run)})
    )
    return digest


def differences(values: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """Names that have not the value that was expected, or are in one alone."""
    return [n for n in sorted({*values, *expected}) if values.get(n) != expected.get(n)]
