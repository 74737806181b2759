"""Runs that signals end: what is saved, what is said, and that going on equals never stopping."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastslow.channels.fast.channel import FastChannel
from fastslow.channels.fast.dspy_bridge import PolicyEngine
from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.channels.slow.sft import GoldTrainer
from fastslow.core.types import Example, Grade
from fastslow.loop import evaluation, launch, signals
from fastslow.loop.signals import Stopped
from fastslow.measure.evaluator import Evaluator
from fastslow.records.jsonl import read_scores
from fastslow.records.run_folder import RunDir
from fastslow.task.definition import Task, TaskConfig, task
from tests.support.paths import ROOT
from tests.support.runs import TOY, newest, newest_point, no_report, outcome, start


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> str:
    return f"model.name={tiny_folder}"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, model: str) -> Path:
    """One run that nothing disturbed."""
    return start(tmp_path_factory.mktemp("whole"), [model])


@pytest.fixture
def signalled(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Have this process get a signal just before the n-th call of a function."""

    def arrange(owner: Any, name: str, call: int, number: int = signal.SIGINT) -> None:
        inner, calls = getattr(owner, name), iter(range(1, 99))

        def watched(*args: Any, **kwargs: Any) -> Any:
            if next(calls) == call:
                os.kill(os.getpid(), number)
            return inner(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    # a shell that started the tests in the background has them ignore it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield arrange
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("owner", "name", "call", "number", "point"),
    [
        (FastSlowTrainer, "update", 3, signal.SIGINT, "000-001-002"),
        (FastChannel, "adapt", 1, signal.SIGTERM, "000-000-002"),
        (PolicyEngine, "complete", 3, signal.SIGINT, "000-000-002"),
        (Evaluator, "score", 2, signal.SIGINT, "000-000-001"),
        (evaluation, "_split_channels", 2, signal.SIGTERM, "001-001-003"),
    ],
)
def test_the_first_signal_ends_the_run_after_the_step_in_hand_and_nothing_is_lost(
    whole: Path,
    tmp_path: Path,
    model: str,
    signalled: Callable[..., None],
    owner: Any,
    name: str,
    call: int,
    number: int,
    point: str,
) -> None:
    signalled(owner, name, call, number)
    with pytest.raises(Stopped) as stop:
        start(tmp_path, [model])
    assert stop.value.exit_code == 128 + number
    run = newest(tmp_path)
    assert stop.value.__notes__ == [f"fastslow resume {run}"]
    assert json.loads((run / "run.json").read_text())["state"] == "interrupted"
    assert newest_point(run).name == point
    before = (run / "scores.jsonl").read_bytes()

    assert outcome(launch.resume(run, no_report)) == outcome(whole)
    assert (run / "scores.jsonl").read_bytes().startswith(before)  # nothing was measured again


def test_a_stop_within_a_phase_on_gold_answers_loses_nothing_either(
    tmp_path: Path, model: str, signalled: Callable[..., None]
) -> None:
    gold = [model, "slow.kind=sft", "slow.lr=0.02", "slow.kl_budget=0.01", "fast=null"]
    undisturbed = start(tmp_path, gold)
    signalled(GoldTrainer, "update", 3)
    with pytest.raises(Stopped):
        start(tmp_path, gold)
    stopped = newest(tmp_path)
    assert newest_point(stopped).name == "000-001-001"
    assert outcome(launch.resume(stopped, no_report)) == outcome(undisturbed)


def test_the_second_signal_stops_at_once_and_the_run_goes_on_from_its_last_resume_point(
    whole: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = FastSlowTrainer.update
    reached: list[int] = []

    def twice(*args: Any) -> Any:
        for _ in range(2 if not reached else 0):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1.1)
        reached.append(1)
        return inner(*args)

    with monkeypatch.context() as patch:
        patch.setattr(FastSlowTrainer, "update", twice)
        with pytest.raises(Stopped):
            start(tmp_path, [model])
    assert reached == []
    run = newest(tmp_path)
    assert newest_point(run).name == "000-000"
    assert outcome(launch.resume(run, no_report)) == outcome(whole)


def test_a_signal_while_the_folder_is_marked_leaves_it_marked(
    tmp_path: Path, model: str, signalled: Callable[..., None]
) -> None:
    signalled(RunDir, "mark", 2)  # the first says that it runs
    with pytest.raises(Stopped) as stop:
        start(tmp_path, [model])
    run = newest(tmp_path)
    assert json.loads((run / "run.json").read_text())["state"] == "finished"
    assert stop.value.__notes__ == [f"fastslow report {run}"]


def test_a_second_signal_while_the_folder_is_marked_leaves_it_marked_too(
    whole: Path, tmp_path: Path, model: str, signalled: Callable[..., None]
) -> None:
    signalled(FastSlowTrainer, "update", 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signals, "SAME_REQUEST_S", 0.0)
        signalled(RunDir, "mark", 2)
        with pytest.raises(Stopped) as stop:
            start(tmp_path, [model])
    run = newest(tmp_path)
    assert json.loads((run / "run.json").read_text())["state"] == "interrupted"
    assert stop.value.__notes__ == [f"fastslow resume {run}"]
    assert outcome(launch.resume(run, no_report)) == outcome(whole)


class Restless(TaskConfig):
    """Parameters of `restless`: none."""


@task(name="restless", version=1, source="made here")
def restless(config: Restless) -> Task:
    """Scores that depend on every global generator there is: the same for the same answer."""

    def examples(split: str, count: int) -> tuple[Example, ...]:
        return tuple(Example(f"{split}-{i}", f"{split} {i}", "a") for i in range(count))

    def grade(example: Example, text: str) -> Grade:
        drawn = random.random() + np.random.random() + float(torch.rand(()))
        return Grade(drawn / 3, "at random")

    return Task(
        train=examples("train", 20),
        validation=examples("validation", 4),
        test=examples("test", 8),
        instruction="Write.",
        grade=grade,
        max_tokens=4,
    )


def test_a_grader_that_draws_gives_an_answer_the_same_grade_also_after_a_resume(
    tmp_path: Path, model: str, signalled: Callable[..., None]
) -> None:
    graded = TOY.replace("tests.support.toy_tasks:letters", f"{__name__}:restless")
    graded = graded.replace(', params: {wanted: "mnopqrst"}', "")
    undisturbed = start(tmp_path, [model, "fast=null"], graded)
    signalled(FastSlowTrainer, "update", 3)
    with pytest.raises(Stopped):
        start(tmp_path, [model, "fast=null"], graded)
    resumed = launch.resume(newest(tmp_path), no_report)
    assert outcome(resumed) == outcome(undisturbed)
    rows = [row.sample for row in read_scores(resumed / "scores.jsonl")]
    by_answer = {(row.example, row.completion): row.score for row in rows}
    assert [by_answer[row.example, row.completion] for row in rows] == [row.score for row in rows]
    assert len(set(by_answer.values())) > 1


def test_sigterm_to_the_command_line_ends_with_143_and_says_how_to_go_on(
    tmp_path: Path, model: str
) -> None:
    (tmp_path / "toy.yaml").write_text(TOY)
    words = ["train", "toy.yaml", model, "stages.0.cycles=200", "cycle.optimizer_steps=10"]
    with subprocess.Popen(
        [sys.executable, "-m", "fastslow", *words, "fast=null"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        assert any("slow" in line for line in lines)
        process.send_signal(signal.SIGTERM)
        said = "".join(lines)
    assert process.returncode == 143
    assert "Stopping after the step in hand." in said
    assert "To continue: fastslow resume runs/" in said
    assert said.endswith("Terminated.\n")
    assert json.loads((newest(tmp_path) / "run.json").read_text())["state"] == "interrupted"
