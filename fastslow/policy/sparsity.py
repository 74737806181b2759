"""How few of a vector's entries carry it: measures of sparsity as functions of one vector h.

Higher is sparser. All are unchanged by scaling h, and None for a vector of zeros. Ranks and counts
of active entries are negated.

Source: arXiv 2603.03415 takes such measures of the last hidden state for signals of difficulty;
    Hurley and Rickard 2009 compare them.
"""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    Vector: TypeAlias = Float[Tensor, " width"]


def hoyer(h: "Vector") -> float:
    """(sqrt d - l1 / l2) / (sqrt d - 1), in [0, 1]; needs a width d of two at least."""
    root = math.sqrt(len(h))
    return (root - float(h.abs().sum() / h.norm())) / (root - 1)


def top_energy(share: float) -> Callable[["Vector"], float]:
    """Energy of the max(1, floor(share d)) largest entries, over that of all; in (0, 1]."""

    def energy(h: "Vector") -> float:
        squares = h.square()
        return float(squares.topk(max(1, int(share * len(h)))).values.sum() / squares.sum())

    return energy


def energy_rank(h: "Vector") -> float:
    """exp(entropy of p_i = h_i^2 / sum h^2), negated; in [-d, -1]."""
    return -_perplexity(h.square())


def l1_rank(h: "Vector") -> float:
    """exp(entropy of p_i = |h_i| / sum |h|), negated; in [-d, -1]."""
    return -_perplexity(h.abs())


def l0(h: "Vector") -> float:
    """Share of |h_i| above their mean plus one standard deviation (n - 1), negated.

    Source: the authors' own count of active entries. Its sign turns from task to task.
    """
    sizes = h.abs()
    return -float((sizes > sizes.mean() + sizes.std()).double().mean())


def gini(h: "Vector") -> float:
    """Gini coefficient of |h_i|: 2 sum i a_(i) / (d sum a) - (d + 1) / d, in [0, 1)."""
    sizes, d = h.abs().sort().values, len(h)
    weighted: float = sum(rank * size for rank, size in enumerate(sizes.tolist(), start=1))
    return 2 * weighted / (d * float(sizes.sum())) - (d + 1) / d


def _perplexity(weights: "Vector") -> float:
    shares = weights / weights.sum()
    shares = shares[shares > 0]  # those too small for a number are 0 only now
    return math.exp(-float((shares * shares.log()).sum()))


MEASURES: Mapping[str, Callable[["Vector"], float]] = {
    "hoyer": hoyer,
    "top1_energy": top_energy(0.01),
    "top5_energy": top_energy(0.05),
    "top10_energy": top_energy(0.10),
    "energy_rank": energy_rank,
    "l1_rank": l1_rank,
    "l0": l0,
    "gini": gini,
}
"""All of them, by the names of the signals they make."""


def sparsity(name: str, h: "Vector") -> float | None:
    """A measure of a vector, in double precision: values move in the third decimal."""
    return MEASURES[name](h.double()) if h.any() else None
