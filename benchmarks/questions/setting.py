"""What the experiments on a model share: the tasks, and prompts with drawn demonstrations."""

from dataclasses import dataclass

from benchmarks.questions.design import TASKS
from fastslow.core.prompts import Demonstration, PromptProgram
from fastslow.core.seeds import named_random
from fastslow.core.types import Example
from fastslow.policy.model_store import resolve
from fastslow.policy.policy import Policy, load_policy
from fastslow.task.definition import Task
from fastslow.task.registry import build_task
from fastslow.task.splits import spread_answers


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
