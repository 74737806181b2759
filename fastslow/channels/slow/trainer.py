"""What the slow channel asks of a trainer, and the step all trainers end an update with.

A trainer belongs to one stage. It knows what an update learns from; when to make one, at which
learning rate, and how to resume is `channel.py`'s.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch

from fastslow.core.distributed import average_gradients, num_processes
from fastslow.core.errors import ChannelError
from fastslow.core.prompts import Population, PromptProgram
from fastslow.core.types import Batch, Evidence, TokenIds
from fastslow.policy.engine.memory import free_memory, out_of_memory
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task

T = TypeVar("T")

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

    def notes(self) -> list[str]:
        """What a reader must know of the updates since this was asked last; a sentence each."""

    def progress(self) -> dict[str, Any]:
        """What its next update needs beyond weights and optimizer, as plain data."""

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Take back what `progress` gave; the next update then does what it would have done."""


class PassSize:
    """Rows of one forward and backward pass; halved when the memory does not take them.

    Gradients add up over passes, so the update stays the same.

    Args:
        rows: To begin with; >= 1.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._notes: list[str] = []

    def fit(self, passes: Callable[[int], T], undo: Callable[[], None]) -> T:
        """What `passes` gives for the most rows at a time that the memory takes.

        Args:
            passes: Makes all passes of an update, with so many rows in each at most.
            undo: Takes back what `passes` did before it failed.

        Raises:
            ChannelError: Not even one row fits; or there are several processes, which all have to
                make the same number of passes.
        """
        while True:
            try:
                return passes(self.rows)
            except (RuntimeError, MemoryError) as error:
                words = out_of_memory(error)
                if words is None:
                    raise
            if self.rows == 1 or num_processes() > 1:
                raise ChannelError(
                    f"slow: out of memory with {self.rows} rows in one pass: {words} Lower "
                    "slow.rows_per_forward or the tasks' lengths, or use another device."
                )
            undo()
            free_memory()
            before, self.rows = self.rows, self.rows // 2
            self._notes.append(
                f"out of memory with {before} rows in one pass; at most {self.rows} from here on. "
                "The gradient is the same."
            )

    def take_notes(self) -> list[str]:
        """The notes since this was asked last."""
        notes, self._notes = self._notes, []
        return notes


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
