"""`fastslow tasks base-rate`: what an untrained model scores, and whether it is ever rewarded."""

import json
from pathlib import Path

import pytest

from fastslow.cli.main import main
from fastslow.core.types import Example, Grade
from fastslow.loop.base_rate import BaseRate, Draws
from fastslow.task.definition import Task, TaskConfig, task
from tests.support.tiny import save_tiny


class NoKeys(TaskConfig):
    """None."""


@task(name="short", version=1, source="made here")
def short(config: NoKeys) -> Task:
    """Any answer of an odd length is right."""
    train, validation, test = (
        tuple(Example(f"{split}{n}", f"{split} {n}?", "a") for n in range(6))
        for split in ("train", "validation", "test")
    )
    return Task(train, validation, test, "Write.", is_odd, max_tokens=3)


def is_odd(example: Example, text: str) -> Grade:
    return Grade(float(len(text) % 2), "odd")


def test_figures_are_those_of_their_scores() -> None:
    rate = BaseRate(
        task="t@1",
        content="c",
        model="m",
        instruction="Do it.",
        test=(1.0, 0.0, 0.0, 0.0),
        majority=0.5,
        rewards=((0.0, 1.0), (0.0, 0.0), (1.0, 1.0), (0.0, 0.0)),
        draws=Draws(problems=4, group=2),
    )
    assert (rate.greedy, rate.reward, rate.mixed) == (0.25, 0.375, 0.25)
    assert rate.lines() == [
        "t@1 under m, 'Do it.' alone",
        "greedy, test:     0.25 [0.05, 0.70], 4 examples",
        "majority, test:   0.50",
        "reward, train:    0.38 [0.10, 0.76], 4 x 2 at temperature 1",
        "groups to learn from: 0.25, those whose rollouts differ in score",
    ]


def test_it_is_measured_once_and_then_shown_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASTSLOW_HOME", str(tmp_path / "home"))
    model = str(save_tiny(tmp_path / "model"))
    words = ["tasks", "base-rate", f"{__name__}:short", "--model", model]
    words += ["--problems", "4", "--group", "3"]

    def shown(*more: str) -> str:
        assert main([*words, *more]) == 0
        return capsys.readouterr().out

    first, again = shown(), shown()
    assert again == first + "(as measured before)\n"
    figures = json.loads(shown("--json"))
    assert [len(figures["rewards"]), len(figures["rewards"][0]), len(figures["test"])] == [4, 3, 6]
    rewards = [score for group in figures["rewards"] for score in group]
    assert figures["reward"] == pytest.approx(sum(rewards) / 12)
    assert 0 < figures["reward"] < 1
    other = json.loads(shown("--json", "--temperature", "0.2"))
    assert other["draws"]["temperature"] == 0.2
    assert other["test"] == figures["test"]
    assert len(list((tmp_path / "home" / "base_rates").iterdir())) == 2


def test_a_model_that_is_not_here_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "base-rate", f"{__name__}:short", "--model", "nobody/nothing"]) == 2
    assert "nobody/nothing" in capsys.readouterr().err
