"""Updates of the slow channel by themselves, without the loop."""

from collections.abc import Sequence
from functools import partial
from typing import Any, TypeVar

import torch

from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.channels.slow.remedies.base import Remedy, Stage, Update
from fastslow.channels.slow.remedies.stack import Remedies
from fastslow.channels.slow.rollouts import Request
from fastslow.channels.slow.trainer import Finish, finish_update
from fastslow.core.prompts import Candidate, PromptProgram, assign_slots
from fastslow.core.types import Batch, Example
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task

SlowSettings = TypeVar("SlowSettings", bound=Any)


def changed(settings: SlowSettings, **values: Any) -> SlowSettings:
    """The settings with other values for some keys, checked as a configuration is."""
    result: SlowSettings = type(settings)(**(dict(settings) | values))
    return result


def batch_of(task: Task, examples: Sequence[Example]) -> Batch:
    return Batch(tuple((task.name, example) for example in examples))


def trainable(policy: Policy) -> list[torch.nn.Parameter]:
    return list(policy.adapters.trainable().values())


def update_of(
    policy: Policy, task: Task, batch: Batch, *, index: int = 0, earlier: Sequence[Task] = ()
) -> Update:
    """The first update of a stage, as remedies see it."""
    stage = Stage(policy, task, index, tuple(earlier), seed=0)
    return Update(stage, batch, step=0, seed=0, lr=1.0, rows=list)


def ending(
    policy: Policy,
    task: Task,
    batch: Batch,
    optimizer: torch.optim.Optimizer,
    *remedies: tuple[str, Remedy],
    max_norm: float = 1.0,
    earlier: Sequence[Task] = (),
) -> Finish:
    """What the channel ends an update with."""
    update = update_of(policy, task, batch, index=len(earlier), earlier=earlier)
    return partial(finish_update, max_norm, optimizer, Remedies(remedies), update)


def set_texts(policy: Policy, task: Task, *texts: PromptProgram) -> None:
    """Make these the texts of the task, best first."""
    policy.populations[task.name] = tuple(Candidate(text, {}) for text in texts)


def scored_group(trainer: FastSlowTrainer, task: Task, examples: Sequence[Example]) -> Any:
    """TRL's rows of the rollouts of these problems, drawn and graded as `task` says."""
    texts = assign_slots(trainer.policy.population(task), trainer.settings.group)
    trainer._requests = [Request(task, text, example) for example in examples for text in texts]
    return trainer._generate_and_score_completions([{"prompt": ""}] * trainer.num_local_rows)
