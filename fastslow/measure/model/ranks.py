"""Ranks of a matrix as functions of its singular values: how many directions it really uses.

Pure functions on descending numbers >= 0. A matrix of zeros, such as the update of a fresh LoRA
adapter, has no rank: `Undefined`. No rank is larger than the number of singular values, so only
matrices of equal shape (and updates of equal LoRA rank) can be compared.
"""

import math
from collections.abc import Sequence

from fastslow.measure.stats.figure import Undefined


def effective_rank(singular_values: Sequence[float]) -> float:
    """exp(entropy of p_i = s_i / sum s), in [1, number of values] (Roy & Vetterli 2007)."""
    total = _positive(sum(singular_values))
    shares = [value / total for value in singular_values if value > 0]
    return math.exp(-sum(share * math.log(share) for share in shares if share > 0))


def stable_rank(singular_values: Sequence[float]) -> float:
    """Energy sum s_i^2 / s_1^2, in [1, number of values] (Rudelson & Vershynin 2007)."""
    largest = _positive(max(singular_values, default=0.0))
    return math.fsum((value / largest) ** 2 for value in singular_values)


def srank(singular_values: Sequence[float], delta: float = 0.01) -> int:
    """Least k whose k largest values hold 1 - delta of the sum (Kumar et al., arXiv 2010.14498)."""
    return _least_k(singular_values, delta)


def energy_rank(singular_values: Sequence[float], delta: float = 0.01) -> int:
    """As `srank` with squared values; "approximate rank" in Dohare et al. (arXiv 2306.13812)."""
    return _least_k([value * value for value in singular_values], delta)


def _least_k(values: Sequence[float], delta: float) -> int:
    target = (1 - delta) * _positive(math.fsum(values))
    ordered = sorted(values, reverse=True)
    total = 0.0
    for k, value in enumerate(ordered, start=1):
        total += value
        if total >= target * (1 - 1e-12):
            return k
    return len(ordered)


def _positive(total: float) -> float:
    if not total > 0:
        raise Undefined("a matrix of zeros has no rank")
    return total
