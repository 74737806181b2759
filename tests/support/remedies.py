"""Remedies of a user's own that leave everything as it is."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor
from torch.optim import Optimizer

from fastslow.plugins import (
    Ended,
    Memory,
    Remedy,
    RemedyConfig,
    Stage,
    TaughtRow,
    Update,
    Weights,
    remedy,
)


class NoParameters(RemedyConfig):
    """None."""


@remedy(name="empty", source="made here")
def empty(config: NoParameters) -> Remedy:
    """Has no hook."""
    return Remedy()


@remedy(name="idle", source="made here")
def idle(config: NoParameters) -> Remedy:
    """Has every hook; none does anything."""

    def begin(stage: Stage, memory: Memory) -> None:
        return None

    def is_over(memory: Memory) -> bool:
        return False

    def attempt(
        update: Update, memory: Memory, optimizer: Optimizer, make: Callable[[], dict[str, float]]
    ) -> dict[str, float]:
        return make()

    def standing(memory: Memory) -> dict[str, float]:
        return {}

    def rows(update: Update, memory: Memory) -> Sequence[TaughtRow]:
        return []

    def penalty(weights: Weights, memory: Memory) -> Tensor | None:
        return None

    def project(weights: Weights, memory: Memory) -> None:
        return None

    def settle(weights: Weights, memory: Memory, update: Update, optimizer: Optimizer) -> None:
        return None

    def end(ended: Ended, memory: Memory) -> Mapping[str, float | None]:
        return {}

    return Remedy(
        begin, is_over, attempt, standing, rows, penalty, project, settle, end, needs_start=True
    )
