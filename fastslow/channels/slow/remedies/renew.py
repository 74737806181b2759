"""Renewal: three ways to keep an adapter that goes on from stage to stage able to learn.

Continual backprop renews units of the network; here those are frozen, so ranks of the adapter are
renewed instead. The optimizer's moments start again with every stage anyway.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveFloat

from fastslow.channels.slow.remedies.base import (
    AdapterPolicy,
    Memory,
    Remedy,
    RemedyConfig,
    Stage,
    Update,
    Weights,
    remedy,
)
from fastslow.core.keys import OURS, Rate, key

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


class RenewConfig(RemedyConfig):
    """Keeps a continuing adapter plastic."""

    adapter_policies: ClassVar[tuple[AdapterPolicy, ...]] = ("continue",)
    why_not: ClassVar[str] = "renews an adapter that goes on, and a fresh one is new already"
    needs_earlier: ClassVar[bool] = False

    kind: Literal["renew"] = key("renew", "name", "arXiv 1910.08475; arXiv 2308.11958")
    """Which remedy."""
    action: Literal["shrink_perturb", "recycle", "l2_init"] = key("recycle", "name", OURS)
    """At the start of a later stage B is scaled down and A perturbed (arXiv 1910.08475), or the
    ranks of lowest norm start again; or after every step weights are pulled towards those of the
    first stage's start (arXiv 2308.11958)."""
    scale: Rate = key(0.8, "factor", "arXiv 1910.08475 uses 0.6 to 0.9")
    """`shrink_perturb`: B is multiplied by it."""
    noise: NonNegativeFloat = key(0.01, "standard deviation", "arXiv 1910.08475")
    """`shrink_perturb`: of the normal noise added to A."""
    share: Rate = key(0.25, "share of ranks", OURS)
    """`recycle`: of each matrix's ranks, at least one, those that start again."""
    rate: PositiveFloat = key(0.01, "1 / learning rate", "arXiv 2308.11958")
    """`l2_init`: after a step weights go this share, times the learning rate, towards the start."""


@remedy(name="renew", source="arXiv 1910.08475, arXiv 2308.11958; recycled ranks are ours")
def renew(config: RenewConfig) -> Remedy:
    """Renews a part of the adapter, so that a later stage learns as a first one does."""

    def begin(stage: Stage, memory: Memory) -> None:
        import torch

        adapters = stage.policy.adapters
        if adapters.owner is None:  # the first stage finds a fresh adapter
            if config.action == "l2_init":
                memory.tensors = adapters.copied()
            return
        weights = adapters.copied()
        generator = torch.Generator().manual_seed(stage.seed)
        if config.action == "shrink_perturb":
            adapters.put(shrunk_and_perturbed(weights, config.scale, config.noise, generator))
        elif config.action == "recycle":
            fresh = adapters.fresh(stage.seed)
            adapters.put(recycled(weights, fresh, config.share))

    def settle(weights: Weights, memory: Memory, update: Update, optimizer: "Optimizer") -> None:
        for name, weight in weights.items():
            weight.data.lerp_(memory.tensors[name], update.lr * config.rate)

    return Remedy(begin=begin, settle=settle if config.action == "l2_init" else None)


def shrunk_and_perturbed(
    weights: "dict[str, Tensor]", scale: float, noise: float, generator: object
) -> "dict[str, Tensor]":
    """B times `scale`, A plus normal noise."""
    import torch

    def changed(name: str, weight: "Tensor") -> "Tensor":
        if ".lora_B." in name:
            return weight * scale
        draw: Tensor = torch.randn(weight.shape, generator=generator, dtype=torch.float32)  # type: ignore[call-overload]
        return weight + noise * draw.to(weight)

    return {name: changed(name, weight) for name, weight in weights.items()}


def recycled(
    weights: "dict[str, Tensor]", fresh: "dict[str, Tensor]", share: float
) -> "dict[str, Tensor]":
    """The ranks of lowest norm(B_:k) norm(A_k:) of each matrix start again: A as drawn, B zero."""
    result = dict(weights)
    for name, b in weights.items():
        if ".lora_B." not in name:
            continue
        partner = name.replace(".lora_B.", ".lora_A.")
        a = weights[partner]  # [rank, columns]; b is [rows, rank]
        norms = b.norm(dim=0) * a.norm(dim=1)
        lowest = norms.argsort(stable=True)[: max(1, int(share * len(norms)))]
        result[name], result[partner] = b.clone(), a.clone()
        result[name][:, lowest] = 0
        result[partner][lowest] = fresh[partner][lowest]
    return result
