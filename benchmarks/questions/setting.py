"""What the experiments share: the tasks, prompts with drawn demonstrations, where figures lie."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.keeping import REFERENCE
from fastslow.core.prompts import Demonstration, PromptProgram
from fastslow.core.seeds import named_random
from fastslow.core.types import Example
from fastslow.policy.model_store import resolve
from fastslow.policy.policy import Policy, load_policy
from fastslow.task.definition import Task
from fastslow.task.registry import build_task
from fastslow.task.splits import spread_answers

FOLDER = REFERENCE / "questions"
MODEL = "smollm2-135m-instruct"
TASKS: Mapping[str, Mapping[str, Any]] = {
    "country_continent": {},
    "word_valence": {"words": 200},
    "word_language": {"words": 80},
}
"""Their parameters: as many problems as their sources give."""


@dataclass(frozen=True)
class Prompted:
    """A prompt with demonstrations, and the problems that are not among them."""

    program: PromptProgram
    examples: tuple[Example, ...]


def tasks() -> dict[str, Task]:
    """The tasks of the experiments, by name."""
    return {name: build_task(name, None, dict(params)) for name, params in TASKS.items()}


def demonstrated(task: Task, count: int, draw: int) -> Prompted:
    """The task's instruction with demonstrations drawn from all its examples, answers spread."""
    examples = [*task.train, *task.validation, *task.test]
    shuffled = list(examples)
    named_random(draw, "questions", task.name).shuffle(shuffled)
    chosen = spread_answers(shuffled)[:count]
    ids = {example.id for example in chosen}
    program = PromptProgram(
        task.instruction, tuple(Demonstration(e.question, e.answer) for e in chosen)
    )
    return Prompted(program, tuple(e for e in examples if e.id not in ids))


def model(path_or_name: str) -> Policy:
    """The base model, by its folder or name."""
    return load_policy(resolve(path_or_name).path_or_id)


def write(name: str, figures: Mapping[str, Any]) -> None:
    """Keep an experiment's figures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{name}.json"
    file.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"written: {file}", flush=True)


def read(name: str) -> Any:
    """The kept figures of an experiment; None where it was not made."""
    file: Path = FOLDER / f"{name}.json"
    return json.loads(file.read_text()) if file.is_file() else None
