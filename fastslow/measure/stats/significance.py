"""Conclusions from several seeds, several claims and repeated measurements."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from fastslow.core.types import Metric

LEAST_SEEDS = 6
"""Pairs of seeds from which on a sign-flip test can fall below 5 %: 2/2^6 = .031."""
MAX_EXACT_SEEDS = 16
"""With more the sign flips are too many to count."""


@dataclass(frozen=True, slots=True)
class SignFlip:
    """Exact sign-flip test of paired differences over seeds."""

    n: int
    """Seeds."""
    p_value: float
    """Two-sided, in (0, 1]."""
    lowest_possible: float
    """2/2^n: no data whatsoever would have given less."""
    why_not_significant: str | None
    """Why no significance may be claimed whatever `p_value` is; None from six seeds on."""


def sign_flip(differences: Sequence[float]) -> SignFlip | None:
    """Could the mean difference over seeds have had either sign at random?

    Exact: all 2^n ways to flip the signs are counted; the p-value is the share whose mean is at
    least as far from 0 as the one observed. None without a difference, and with more than 16.

    Source: Fisher's randomisation test; the limits by number of seeds follow from counting.
    """
    n = len(differences)
    if not 1 <= n <= MAX_EXACT_SEEDS:
        return None
    observed = abs(math.fsum(differences))
    slack = 1e-12 * math.fsum(map(abs, differences))
    extreme = sum(
        abs(math.fsum(s * d for s, d in zip(signs, differences, strict=True))) >= observed - slack
        for signs in product((1, -1), repeat=n)
    )
    lowest, why = 2.0 ** (1 - n), None
    if n < LEAST_SEEDS:
        why = f"{n} seeds cannot give p below {lowest:.3g}; significance needs {LEAST_SEEDS}"
    return SignFlip(n, extreme / 2**n, lowest, why)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values by name: those up to 5 % keep the family's error at 5 % (Holm 1979)."""
    adjusted: dict[str, float] = {}
    so_far = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda claim: p_values[claim])):
        so_far = max(so_far, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = so_far
    return {name: adjusted[name] for name in p_values}


def noise_floor(base_scores: Sequence[float]) -> Metric:
    """How far repeated evaluations of the same base lie apart on one task: max - min.

    A floor under what may be called a change, never an interval: the range of n runs grows with n.
    In [0, 1]; None with fewer than two repetitions.
    """
    formula = "max - min over repeated base evaluations (ours)"
    if len(base_scores) < 2:
        reason = f"needs two base evaluations at least, got {len(base_scores)}"
        return Metric("noise_floor", None, reason, formula)
    return Metric("noise_floor", max(base_scores) - min(base_scores), None, formula)
