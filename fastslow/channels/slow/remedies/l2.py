"""L2 to the end of the last stage: every weight is pulled back alike.

Often as good as a Fisher-weighted pull where nothing is rehearsed (arXiv 2203.17269).
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveFloat

from fastslow.channels.slow.remedies.base import (
    AdapterPolicy,
    Ended,
    Memory,
    Remedy,
    RemedyConfig,
    Weights,
    remedy,
)
from fastslow.core.keys import OURS, key

if TYPE_CHECKING:
    from torch import Tensor


class L2Config(RemedyConfig):
    """A quadratic pull of all weights towards where the last stage left them."""

    adapter_policies: ClassVar[tuple[AdapterPolicy, ...]] = ("continue",)
    why_not: ClassVar[str] = "pulls towards values that a fresh adapter does not have"

    kind: Literal["l2"] = key("l2", "name", "arXiv 2203.17269")
    """Which remedy."""
    strength: PositiveFloat = key(1.0, "weight", OURS)
    """Weight of the penalty, half the squared distance from the anchor."""


@remedy(name="l2", source="L2 to the last stage's weights, as compared in arXiv 2203.17269")
def l2(config: L2Config) -> Remedy:
    """Holds all weights where the last stage left them."""

    def penalty(weights: Weights, memory: Memory) -> "Tensor | None":
        terms = [
            ((weight - memory.tensors[name]) ** 2).sum()
            for name, weight in weights.items()
            if name in memory.tensors
        ]
        return sum(terms[1:], terms[0]) / 2 if terms else None

    def end(ended: Ended, memory: Memory) -> dict[str, float | None]:
        import torch

        anchor = ended.stage.policy.adapters.copied()
        moves = [
            torch.linalg.vector_norm(w - memory.tensors[n])
            for n, w in anchor.items()
            if memory.tensors
        ]
        memory.tensors = anchor
        return {"moved": float(torch.linalg.vector_norm(torch.stack(moves)))} if moves else {}

    return Remedy(penalty=penalty, end=end, strength=config.strength)
