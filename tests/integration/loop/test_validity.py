"""A study of signals reads a run as it was scored, changes nothing of it, and says what is missing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fastslow.cli.main import main
from fastslow.core.files import checksums
from fastslow.core.types import Example, Grade
from fastslow.plugins import Reading, Signal, SignalConfig, signal
from fastslow.task.definition import Task, TaskConfig, task
from fastslow.task.graders import exact_match
from tests.support.runs import start
from tests.support.tiny import save_tiny

HERE = "tests.integration.loop.test_validity"
COLOURS = ("red", "green", "blue", "brown", "white", "black", "grey", "pink")


class Named(TaskConfig):
    """Parameters of `named` and `summed`."""

    wanted: str = "?"
    """Begins every question."""


def make(config: Named, grade: Callable[[Example, str], Grade]) -> Task:
    def examples(split: str, count: int) -> tuple[Example, ...]:
        rows = [(f"{config.wanted} {c} {d}", c[:1]) for c in COLOURS for d in COLOURS]
        start = {"train": 24, "validation": 20, "test": 0}[split]
        return tuple(
            Example(f"{split}-{i}", question, answer)
            for i, (question, answer) in enumerate(rows[start : start + count])
        )

    return Task(
        train=examples("train", 40),
        validation=examples("validation", 4),
        test=examples("test", 20),
        instruction="Write.",
        grade=grade,
        max_tokens=4,
    )


@task(name="named", version=1, source="made here")
def named(config: Named) -> Task:
    """The first letter of a colour, exactly."""
    return make(config, exact_match)


@task(name="summed", version=1, source="made here")
def summed(config: Named) -> Task:
    """A score that every other answer changes: any policy gets some right."""

    def grade(example: Example, text: str) -> Grade:
        return Grade((sum((example.question + text).encode()) % 8) / 7, "by a sum")

    return make(config, grade)


@signal(name="colour", source="made here")
def colour(config: SignalConfig) -> Signal:
    """What a user may bring: a number of the reading."""

    def value(reading: Reading) -> float:
        return float(reading.prompt_tokens % 7)

    return value


OVERRIDES = (
    "stages=[{task: first, cycles: 1}, {task: second, cycles: 1}]",
    f"tasks.first={{use: '{HERE}:summed'}}",
    f"tasks.second={{use: '{HERE}:named', params: {{wanted: '!'}}}}",
    f"evaluation.signals=[{{kind: hoyer}}, {{kind: custom, use: '{HERE}:colour'}}]",
    "evaluation.prompt_policies=[seed]",
    "evaluation.neutral=false",
    "evaluation.geometry=false",
    "evaluation.proxies=false",
    "evaluation.kl_examples=0",
    "evaluation.curve_examples=0",
    "evaluation.test_examples=20",
    "slow={kind: sft, lr: 0.02}",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals")
    return start(folder, [*OVERRIDES, f"model.name={save_tiny(folder / 'model')}"])


@pytest.fixture(scope="module")
def study(run: Path) -> tuple[Path, dict[str, str], dict[str, str]]:
    """The folder of the study, and checksums of the run's other files before and after."""
    before = checksums(run)
    assert main(["signals", str(run)]) == 0
    after = {name: s for name, s in checksums(run).items() if not name.startswith("signals/")}
    return run / "signals", before, after  # type: ignore[return-value]
