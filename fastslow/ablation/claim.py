"""One claim with its answer, and how an answer follows from an interval."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fastslow.measure.significance import MAX_EXACT_SEEDS, SignFlip, sign_flip
from fastslow.measure.uncertainty import Z_95, Z_DETECT

Answer: TypeAlias = Literal["yes", "no", "not decidable"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim and its answer."""

    name: str
    statement: str
    answer: Answer
    effect: float | None
    """In `unit`; None where it has no value."""
    low: float | None
    """Lower end of the effect's 95 % interval."""
    high: float | None
    boundary: float
    """The effect on whose one side the claim holds."""
    unit: str
    detectable: float | None
    """The smallest distance from `boundary` that would be found with 80 % power: in `unit`, or for
    ratios a factor."""
    reason: str | None
    """Why there is no effect or no interval."""
    test: SignFlip | None
    """Sign-flip test of the seeds' distances from `boundary`."""
    holm: float | None
    """Its p-value, adjusted for all claims."""
    numbers: Mapping[str, float | None]
    """What the answer rests on, by what it is."""


def judged(
    name: str,
    statement: str,
    effect: float | None,
    ends: tuple[float | None, float | None],
    *,
    boundary: float,
    above: bool,
    unit: str,
    detectable: float | None,
    reason: str | None,
    distances: Sequence[float] | None,
    numbers: Mapping[str, float | None],
) -> Claim:
    """Judge: on which side of `boundary` does the interval lie?"""
    low, high = ends
    over = low is not None and (low >= boundary if name == "plasticity" else low > boundary)
    under = high is not None and high < boundary
    answer: Answer = "not decidable"
    if over or under:
        answer = "yes" if over == above else "no"
    has_test = distances and len(distances) <= MAX_EXACT_SEEDS
    return Claim(
        name,
        statement,
        answer,
        effect,
        low,
        high,
        boundary,
        unit,
        detectable,
        reason,
        sign_flip(distances) if distances and has_test else None,
        None,
        numbers,
    )


def detectable_factor(low: float | None, high: float | None) -> float | None:
    """The factor below 1 that would be found, from the interval of a ratio."""
    if low is None or high is None or low <= 0 or high == low:
        return None
    se = (math.log(high) - math.log(low)) / (2 * Z_95)
    return math.exp(-Z_DETECT * se)
