"""What the slow channel asks of a trainer, and the step all trainers end an update with.

A trainer belongs to one stage. It knows what an update learns from; when to make one, at which
learning rate, and how to resume is `slow.py`'s.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch

from fastslow.policy.policy import Policy
from fastslow.processes import average_gradients
from fastslow.prompts import Population, PromptProgram
from fastslow.task import Task
from fastslow.types import Batch, Evidence, TokenIds

BARE = PromptProgram("")
"""A problem without any text of ours: no instruction, no demonstrations. A chat template that puts
in a system turn of its own still does, since that is what a user without a text gets."""


class UpdateSettings(Protocol):
    """The settings every kind of update has; see `config.models`."""

    @property
    def lr(self) -> float:
        """Peak learning rate of AdamW."""

    @property
    def warmup_steps(self) -> int:
        """Updates over which the learning rate rises from 0."""

    @property
    def weight_decay(self) -> float:
        """AdamW's decoupled weight decay."""


class Updates(Protocol):
    """Makes updates of the adapter, one per batch."""

    def slots(self, population: Population) -> tuple[PromptProgram, ...]:
        """The texts every problem of an update is paired with, one row each."""

    def update(
        self, batch: Batch, slots: Sequence[PromptProgram], optimizer: Any, seed: int
    ) -> dict[str, float]:
        """Learn from one batch: at most one optimizer step.

        Args:
            batch: Q problems.
            slots: What `slots` gave.
            optimizer: Over the adapter's parameters.
            seed: Of every draw.

        Returns:
            Figures of this update by name, among them `skipped_updates`, 1 if there was nothing
            to learn and so no step, else 0, with `loss` and `grad_norm`.
        """

    def has_signal(self, figures: Mapping[str, float]) -> bool:
        """Whether an update with these figures must have changed the adapter."""

    def scored_rows(self) -> list[tuple[TokenIds, TokenIds]]:
        """Prompt and completion, or gold answer, of every row of the last update in this process.

        What KL to the base is measured on.
        """

    def row_logprobs(self) -> Iterable[float]:
        """Log-probabilities met in the last update, in nats; of a broken adapter not finite."""

    def sample_lines(self) -> list[str]:
        """One row of each problem of the last update, readable; untrusted text."""

    def evidence(self) -> list[Evidence]:
        """Of each problem of the last update the first full success and the first failure."""

    def progress(self) -> dict[str, Any]:
        """What its next update needs beyond weights and optimizer, as plain data."""

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Take back what `progress` gave; the next update then does what it would have done."""


class MakeUpdates(Protocol):
    """Makes the trainer of a stage."""

    def __call__(self, policy: Policy, task: Task, num_problems: int, settings: Any) -> Updates:
        """A trainer of `policy` on batches of `num_problems` problems of `task`."""


def clip_and_step(model: Any, optimizer: torch.optim.Optimizer, max_norm: float) -> float:
    """Average the gradient over processes, scale it down to `max_norm`, step, and clear it.

    Returns:
        The gradient's L2 norm before it was scaled down.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    average_gradients(parameters)
    norm = torch.nn.utils.clip_grad_norm_(parameters, max_norm)
    optimizer.step()
    optimizer.zero_grad()
    return float(norm)
