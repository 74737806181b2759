"""Orthogonal updates: a new adapter reads directions that no earlier adapter reads.

O-LoRA (arXiv 2310.14152) penalizes the overlap of the new A with the earlier ones; the hard form
takes it away after every step. Projecting gradients instead is not enough under AdamW: its moments
still move the weights into the directions that were taken out.
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
    Update,
    Weights,
    remedy,
)
from fastslow.core.keys import OURS, key

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


class OrthogonalConfig(RemedyConfig):
    """A new adapter's A stays orthogonal to the A of all earlier stages."""

    adapter_policies: ClassVar[tuple[AdapterPolicy, ...]] = ("merge-then-new",)
    why_not: ClassVar[str] = "compares a new adapter with the frozen ones of earlier stages"

    kind: Literal["orthogonal"] = key("orthogonal", "name", "O-LoRA, arXiv 2310.14152")
    """Which remedy."""
    form: Literal["hard", "penalty"] = key("hard", "name", OURS)
    """`hard` projects A after every step; `penalty` adds the sum of abs(A_earlier A_new^T)."""
    strength: PositiveFloat = key(0.5, "weight", "O-LoRA's repository, scripts/order_1.sh")
    """Weight of the penalty, summed over modules; of no effect on the hard form."""


@remedy(name="orthogonal", source="O-LoRA, arXiv 2310.14152; the hard form is ours")
def orthogonal(config: OrthogonalConfig) -> Remedy:
    """Keeps the inputs that an adapter reads apart from those that earlier ones read."""

    def begin(stage: Stage, memory: Memory) -> None:
        import torch

        earlier = stage.policy.adapters.frozen()
        memory.tensors = {}
        for name, weight in stage.policy.adapters.trainable().items():
            if name not in earlier or ".lora_A." not in name:
                continue
            # A_earlier [ranks, columns]; the hard form needs a basis of its rows, [rank, columns]
            taken = earlier[name]
            memory.tensors[name] = row_basis(taken) if config.form == "hard" else taken.clone()
            if config.form == "hard":
                with torch.no_grad():
                    take_out(weight, memory.tensors[name])

    def penalty(weights: Weights, memory: Memory) -> "Tensor | None":
        terms = [(taken @ weights[name].T).abs().sum() for name, taken in memory.tensors.items()]
        return sum(terms[1:], terms[0]) if terms else None

    def settle(weights: Weights, memory: Memory, update: Update, optimizer: "Optimizer") -> None:
        for name, basis in memory.tensors.items():
            take_out(weights[name], basis)

    def end(ended: Ended, memory: Memory) -> dict[str, float | None]:
        weights = ended.stage.policy.adapters.trainable()
        overlaps = [
            float((t @ weights[n].detach().T).abs().max()) for n, t in memory.tensors.items()
        ]
        return {"largest_overlap": max(overlaps)} if overlaps else {}

    if config.form == "hard":
        return Remedy(begin=begin, settle=settle, end=end)
    return Remedy(begin=begin, penalty=penalty, end=end, strength=config.strength)


def row_basis(rows: "Tensor") -> "Tensor":
    """An orthonormal basis of the space that the rows span, [at most rows, columns]."""
    import torch

    _, sizes, directions = torch.linalg.svd(rows, full_matrices=False)
    basis: Tensor = directions[sizes > 1e-6 * sizes.max()].contiguous()
    return basis


def take_out(weight: "Tensor", basis: "Tensor") -> None:
    """Take the span of an orthonormal basis [k, columns] out of the rows of `weight`, in place.

    Twice, since one pass leaves the rounding of the first.
    """
    for _ in range(2):
        weight.data -= (weight.data @ basis.T) @ basis
