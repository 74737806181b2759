"""The gate's rules as pure functions on numbers: the loss, its limit, and the verdict.

A loss is a drop of a score, positive when it got worse. It fails when it exceeds the larger of the
user's threshold and the noise floor. By default the estimate itself is compared; with `strict` the
upper end of its 95 % interval, so that only what the examples can show to be small enough passes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, TypeAlias

from fastslow.measure.stats.intervals import Z_95, Z_DETECT, Interval, PairedDifference

RuleName: TypeAlias = Literal[
    "forgetting", "task_forgetting", "below_base", "against", "task_against", "min_score"
]
SLACK = 1e-9
"""Rounding that does not count as a loss."""


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule applied."""

    rule: RuleName
    task: str | None
    """None for a mean over tasks."""
    value: float
    """A loss in score units, positive = got worse; for `min_score` the score."""
    low: float | None
    """Lower end of its 95 % interval; None where the differences have no spread."""
    high: float | None
    n: int
    """Examples behind it."""
    limit: float
    """The value, or with `strict` its bound, was compared with it."""
    limit_from: Literal["option", "noise floor"]
    smallest_detectable: float | None
    """None for `min_score`."""
    passed: bool


def mean_change(changes: Sequence[PairedDifference]) -> PairedDifference:
    """The mean of several tasks' changes, the tasks taken as fixed.

    SE = sqrt(sum se_j^2) / m. A task whose differences have no spread gives the most that Wilson's
    interval allows, on the side of the loss, in place of a standard error.
    """
    m, mean = len(changes), fmean(change.mean for change in changes)
    se = math.sqrt(sum(change.se**2 for change in changes if change.se is not None)) / m
    unknown = sum(change.smallest_detectable for change in changes if change.se is None) / m
    return PairedDifference(
        n=sum(change.n for change in changes),
        mean=mean,
        se=se or None,
        low=mean - Z_95 * se - unknown if se else None,
        high=mean + Z_95 * se if se else None,
        p_value=None,
        smallest_detectable=Z_DETECT * se + unknown,
        reason=None if se else changes[0].reason,
    )


def judge_loss(
    rule: RuleName,
    task: str | None,
    change: PairedDifference,
    threshold: float,
    floor: float | None,
    *,
    strict: bool,
) -> RuleResult:
    """Whether a loss is at most the larger of the threshold and the noise floor.

    `change` is after - before, of one task or of the mean; without any spread the upper end of its
    loss is the most that Wilson's interval allows. `strict` compares that end.
    """
    value = 0.0 - change.mean
    high = value + change.smallest_detectable if change.low is None else -change.low
    high = min(1.0, high)
    limit = threshold if floor is None else max(threshold, floor)
    return RuleResult(
        rule=rule,
        task=task,
        value=value,
        low=None if change.high is None else 0.0 - change.high,
        high=high,
        n=change.n,
        limit=limit,
        limit_from="noise floor" if limit > threshold else "option",
        smallest_detectable=min(1.0, change.smallest_detectable),
        passed=(high if strict else value) <= limit + SLACK,
    )


def judge_score(
    task: str, score: float, interval: Interval | None, n: int, least: float, *, strict: bool
) -> RuleResult:
    """Whether a score is at least the one demanded; `strict` compares its lower bound.

    A score without an interval cannot be shown to be anything: with `strict` it fails.
    """
    low, high = (interval.low, interval.high) if interval else (None, None)
    compared = low if strict else score
    return RuleResult(
        rule="min_score",
        task=task,
        value=score,
        low=low,
        high=high,
        n=n,
        limit=least,
        limit_from="option",
        smallest_detectable=None,
        passed=compared is not None and compared >= least - SLACK,
    )
