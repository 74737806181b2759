"""What the slow channel asks of a trainer, and the step all trainers end an update with.

A trainer belongs to one stage.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, cast

import torch

from fastslow.channels.slow.passes import PassSize
from fastslow.channels.slow.remedies.base import Update
from fastslow.channels.slow.remedies.stack import Remedies
from fastslow.core.distributed import average_gradients
from fastslow.core.errors import ChannelError
from fastslow.core.types import Anchor, Batch, Evidence, TokenIds
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task

Arguments = TypeVar("Arguments")
"""Of one of TRL's trainers."""

Finish: TypeAlias = Callable[[], dict[str, float]]
"""Ends an update: remedies, the optimizer's step, and the gradient's norm among its figures."""


class Updates(Protocol):
    """Makes updates of the adapter, one per batch."""

    pass_size: PassSize

    def update(self, batch: Batch, seed: int, finish: Finish) -> dict[str, float]:
        """Learn from one batch: at most one optimizer step. `seed` is that of every draw.

        Leaves the gradient of its loss in `.grad` of the trainable weights, then calls `finish`,
        unless there was nothing to learn.

        Returns:
            Figures of this update by name, among them `skipped_updates`, 1 if there was nothing
            to learn and so no step, else 0, with `loss` and those of `finish`.
        """

    def begin_cycle(self, anchor: Anchor) -> None:
        """Get ready for the updates of a cycle, none of which was made; most need nothing."""
        return

    def has_signal(self, figures: Mapping[str, float]) -> bool:
        """Whether an update with these figures must have changed the adapter."""

    def scored_rows(self) -> list[tuple[TokenIds, TokenIds]]:
        """Prompt and completion, or gold answer, of every row of this process's last update."""

    def row_logprobs(self) -> Iterable[float]:
        """Log-probabilities met in the last update, in nats; of a broken adapter not finite."""

    def sample_lines(self) -> list[str]:
        """One row of each problem of the last update, readable; untrusted text."""

    def evidence(self) -> list[Evidence]:
        """Of each problem the first success and failure drawn; empty where nothing is drawn."""
        return []

    def progress(self) -> dict[str, Any]:
        """What its next update needs beyond weights and optimizer, as plain data."""
        return {"rows_per_pass": self.pass_size.rows}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Tensors that its next update needs beyond weights and optimizer; most need none."""
        return {}

    def restore(
        self, progress: Mapping[str, Any], tensors: Mapping[str, torch.Tensor] | None = None
    ) -> None:
        """Take back what `progress` and `tensors` gave, so that nothing differs from then on."""
        self.pass_size.rows = progress.get("rows_per_pass", self.pass_size.rows)


MakeUpdates: TypeAlias = Callable[[Policy, Mapping[str, Task], int, Any], Updates]
"""Makes the trainer of a stage: takes the policy, which needs an adapter and is trained in place;
by name the tasks that the problems are of; Q, the problems of one update; the settings."""


def finish_update(
    max_norm: float, optimizer: torch.optim.Optimizer, remedies: Remedies, update: Update
) -> dict[str, float]:
    """Take the step of an update whose gradient lies in `.grad`; every remedy acts here.

    The gradient is averaged over processes and scaled down to `max_norm`.

    Returns:
        `grad_norm`, its L2 norm before it was scaled down, and the remedies' figures.
    """
    weights = update.stage.policy.adapters.trainable()
    figures = remedies.add_gradients(update)
    average_gradients(weights.values())
    remedies.project(weights)
    norm = torch.nn.utils.clip_grad_norm_(list(weights.values()), max_norm)
    optimizer.step()
    remedies.settle(weights, update, optimizer)
    optimizer.zero_grad()
    return figures | {"grad_norm": float(norm)}


def silent_arguments(kind: Callable[..., Arguments], **others: Any) -> Arguments:
    """Arguments of a trainer that logs, saves and shows nothing, in a process with one card.

    Where several cards are visible TRL else refuses a single process, which transformers would
    spread over them.
    """
    arguments: Any = kind(
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        logging_strategy="no",
        **others,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return cast(Arguments, arguments)


def leave_routers_alone(trainer: Any) -> None:
    """Switch off TRL's loss for balanced experts: routers are not trained, so it has no subject.

    It would need logits of the routers, which the shared layouts do not give.
    """
    trainer.aux_loss_enabled = False
    config = trainer.policy.module.config.get_text_config()
    if hasattr(config, "output_router_logits"):
        config.output_router_logits = False


def require_effect(policy: Policy, rows: Sequence[tuple[TokenIds, TokenIds]]) -> None:
    """Make sure that the adapter changes the logits, on some prompts and their completions.

    Raises:
        ChannelError: At every token of every row they equal the base's.

    Source: EleutherAI/lm-evaluation-harness issues 511 and 808: adapters that were never applied.
    """
    prompts, completions = zip(*rows, strict=True)
    divergences = policy.scorer.kl_to_base(prompts, completions)
    if not any(any(of_row) for of_row in divergences):
        raise ChannelError(
            "slow: after an update at the full rate the adapter changes no logit: "
            f"KL(tuned || base) is exactly 0 at {sum(map(len, divergences))} tokens of {len(rows)} "
            "rows. It is switched off, not attached to the model that is scored, its B matrices "
            "are 0, or slow.lr is too small for their resolution. Check slow.lr, slow.lora, "
            "model.dtype and what else touches the adapter."
        )
