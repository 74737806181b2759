"""A small run on the tiny model, and what must be equal between two runs that are the same run."""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fastslow.channels.slow.channel import SlowChannel
from fastslow.config.loading.load import load_config
from fastslow.loop import launch
from fastslow.records.events import (
    CycleEvent,
    EvaluationEvent,
    Event,
    RemedyEvent,
    RunEvent,
    ScoreRow,
    StepEvent,
    TextEvent,
)
from fastslow.records.jsonl import read_events, read_scores
from fastslow.records.lease import LEASE_FOLDER
from tests.support.outcomes import Outcome

TOY = """
name: toy
stages:
  - {task: first, cycles: 2}
  - {task: second, cycles: 1}
tasks:
  first: {use: "tests.support.toy_tasks:letters"}
  second: {use: "tests.support.toy_tasks:letters", params: {wanted: "mnopqrst"}}
cycle: {optimizer_steps: 2, problems: 2, pool: 8}
fast: {kind: demos, population: 2, demonstrations: 2, metric_calls: 16, threads: 4}
slow: {kind: grpo, group: 4, lr: 0.02}
evaluation: {test_examples: 4, validation_examples: 2, kl_examples: 2, curve_examples: 2}
tracking: null
"""
WIDER = (
    "tasks.held_out={use: 'tests.support.toy_tasks:letters', params: {wanted: uvwxyz}}",
    "fast.metric_calls=24",
    "evaluation={test_examples: 8, validation_examples: 4, kl_examples: 4, curve_examples: 8}",
)
"""Overrides for a run that also scores a task which no stage visits, and scores and spends more."""


def no_report(path: Path) -> Sequence[Path]:
    return ()


def start(
    folder: Path,
    overrides: Sequence[str],
    text: str = TOY,
    finish: Callable[[Path], Sequence[Path]] = no_report,
) -> Path:
    """Take a run made in `folder` to its end."""
    folder.mkdir(exist_ok=True)
    (folder / "toy.yaml").write_text(text)
    loaded = load_config([folder / "toy.yaml"], [f"runs_dir={folder / 'runs'}", *overrides])
    return launch.train(loaded, ["fastslow", "train"], finish)


def whole_and_cut(
    number: int, folder: Path, overrides: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Path]:
    """A run that is never stopped, and what one killed at the end of this slow phase leaves.

    The second is a copy of the first at that moment, so it costs no second run.
    """
    inner, calls, left = SlowChannel.adapt, count(1), folder / "killed"

    def copied(*args: Any) -> Any:
        result = inner(*args)
        if next(calls) == number:
            run = newest(folder)
            shutil.copytree(run, left / run.name, ignore=shutil.ignore_patterns(LEASE_FOLDER))
        return result

    with monkeypatch.context() as patch:
        patch.setattr(SlowChannel, "adapt", copied)
        whole = start(folder, overrides)
    return whole, left / whole.name


def cut_after_slow_phase(
    number: int, folder: Path, overrides: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """The folder of a run that was interrupted at the end of this slow phase, from 1."""
    inner, calls = SlowChannel.adapt, count(1)

    def cut(*args: Any) -> Any:
        result = inner(*args)
        if next(calls) == number:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch:
        patch.setattr(SlowChannel, "adapt", cut)
        with pytest.raises(KeyboardInterrupt):
            start(folder, overrides)
    return newest(folder)


def newest(folder: Path) -> Path:
    """The run made last in `folder`."""
    return max(
        (folder / "runs").glob("*/run.json"), key=lambda card: card.stat().st_ctime_ns
    ).parent


def newest_point(run: Path) -> Path:
    return max((run / "resume").iterdir(), key=lambda point: tuple(map(int, point.name.split("-"))))


def outcome(run: Path) -> Outcome:
    """Everything a run leaves behind but times, names, and what a process was called."""
    point = newest_point(run)
    files = [path for path in [*point.rglob("*"), *(run / "stages").rglob("*")] if path.is_file()]
    compared = (
        ".safetensors",
        "texts.json",
        "slow.json",
        "memory.json",
        "random.json",
        "index.json",
    )
    return Outcome(
        scores=[replace(row, run="") for row in read_scores(run / "scores.jsonl")],
        events=[_timeless(event) for event in read_events(run / "events.jsonl")],
        metrics=[_timeless(event) for event in read_events(run / "metrics.jsonl")],
        files={
            path.relative_to(run).as_posix(): path.read_bytes()
            for path in files
            if path.name.endswith(compared)
        },
        rollouts={p.name: p.read_text() for p in (run / "rollouts").iterdir()},
        state=json.loads((run / "run.json").read_text())["state"],
    )


def _timeless(event: Event | ScoreRow) -> Any:
    if isinstance(event, StepEvent | CycleEvent | EvaluationEvent):
        event = replace(event, time=None)
    if isinstance(event, CycleEvent):
        return replace(event, seconds={})
    if isinstance(event, TextEvent):
        return replace(event, seconds=0.0)
    if isinstance(event, RemedyEvent):
        return replace(event, seconds=0.0, update_seconds=0.0)
    if isinstance(event, RunEvent):
        return replace(event, seconds=0.0, saving_seconds=None, peak_gb=None)
    timed: Any = event
    return replace(timed, seconds=0.0) if hasattr(event, "seconds") else event
