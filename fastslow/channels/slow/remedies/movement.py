"""Movement penalty: the weights that earlier tasks moved most are kept from moving again.

CPO (arXiv 2607.04364): reinforcement learning forgets under continual training because its KL is
taken on the new task's inputs. No old data and no gradients of its own are needed.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveFloat

from fastslow.channels.slow.remedies.base import (
    AdapterPolicy,
    Ended,
    Memory,
    Remedy,
    RemedyConfig,
    Stage,
    Weights,
    remedy,
)
from fastslow.core.keys import Rate, key

if TYPE_CHECKING:
    from torch import Tensor

MASK, ANCHOR = "mask/", "anchor/"
"""Prefixes of the memory's tensors, before the weights' names."""


class MovementConfig(RemedyConfig):
    """A penalty on the movement of the weights that earlier tasks moved most."""

    adapter_policies: ClassVar[tuple[AdapterPolicy, ...]] = ("continue",)
    why_not: ClassVar[str] = "protects weights by their place, which a fresh adapter does not have"

    kind: Literal["movement"] = key("movement", "name", "CPO, arXiv 2607.04364")
    """Which remedy."""
    strength: PositiveFloat = key(100.0, "weight", "CPO")
    """Weight of the penalty, the mean distance of protected weights from the stage's start."""
    share: Rate = key(0.1, "share of weights", "CPO")
    """Of all weights, those that a stage moved most; they join the protected ones."""


@remedy(name="movement", source="CPO, arXiv 2607.04364; the mean over protected weights is ours")
def movement(config: MovementConfig) -> Remedy:
    """Holds the weights that earlier tasks moved most where the stage found them."""

    def begin(stage: Stage, memory: Memory) -> None:
        for name, weight in stage.policy.adapters.copied().items():
            memory.tensors[ANCHOR + name] = weight

    def penalty(weights: Weights, memory: Memory) -> "Tensor | None":
        masks = {
            name: memory.tensors[MASK + name] for name in weights if MASK + name in memory.tensors
        }
        if not masks:
            return None
        moved = [
            ((weights[name] - memory.tensors[ANCHOR + name]).abs() * mask).sum()
            for name, mask in masks.items()
        ]
        return sum(moved[1:], moved[0]) / sum(int(mask.sum()) for mask in masks.values())

    def end(ended: Ended, memory: Memory) -> dict[str, float | None]:
        import torch

        weights = ended.stage.policy.adapters.copied()
        moved = {n: (weight - memory.tensors[ANCHOR + n]).abs() for n, weight in weights.items()}
        sizes = torch.cat([values.flatten() for values in moved.values()])
        count = max(1, int(config.share * len(sizes)))
        threshold = sizes.topk(count).values[-1]
        protected = 0
        for name, values in moved.items():
            mask = (values >= threshold) & (values > 0)
            if MASK + name in memory.tensors:
                mask |= memory.tensors[MASK + name]
            memory.tensors[MASK + name] = mask
            protected += int(mask.sum())
        return {"protected_share": protected / len(sizes)}

    return Remedy(begin=begin, penalty=penalty, end=end, strength=config.strength)
