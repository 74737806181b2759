"""The gate's rules as pure functions on numbers: what was lost, what may be lost, and the verdict.

A loss is a drop of a score, positive when it got worse. It fails when it exceeds the larger of the
user's threshold and the noise floor. By default the estimate itself is compared; with `strict` the
upper end of its 95 % interval, so that only what the examples can show to be small enough passes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, TypeAlias

from fastslow.core.types import Metric
from fastslow.measure.stats.intervals import Z_95, Z_DETECT, Interval, PairedDifference
from fastslow.measure.stats.significance import gate

RuleName: TypeAlias = Literal[
    "forgetting", "task_forgetting", "below_base", "against", "task_against", "min_score"
]
SLACK = 1e-9
"""Rounding that does not count as a loss."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A drop of one score, or of the mean over tasks; positive = got worse."""

    value: float
    """In score units."""
    low: float | None
    """Lower end of the 95 % interval; None where the differences have no spread."""
    high: float
    """Upper end; without any spread the most that Wilson's interval allows."""
    smallest_detectable: float
    """The smallest true drop that would be found with 80 % power."""
    n: int
    """Examples behind it."""


@dataclass(frozen=True, slots=True)
class RuleResult:
    """One rule applied."""

    rule: RuleName
    task: str | None
    """None for a mean over tasks."""
    value: float
    """A loss; for `min_score` the score."""
    low: float | None
    high: float | None
    n: int
    limit: float
    """What the value, or with `strict` its bound, was compared with."""
    limit_from: Literal["option", "noise floor"]
    smallest_detectable: float | None
    """None for `min_score`."""
    passed: bool


def loss_of(change: PairedDifference) -> Loss:
    """The loss in a paired difference, after - before."""
    low = None if change.high is None else 0.0 - change.high
    high = -change.mean + change.smallest_detectable if change.low is None else -change.low
    return Loss(
        0.0 - change.mean, low, min(1.0, high), min(1.0, change.smallest_detectable), change.n
    )


def mean_loss(changes: Sequence[PairedDifference]) -> Loss:
    """The mean of several tasks' losses, the tasks taken as fixed.

    SE = sqrt(sum se_j^2) / m. A task whose differences have no spread gives the most that Wilson's
    interval allows, on the upper side, in place of a standard error.

    Args:
        changes: One per task, after - before; at least one.
    """
    m, value = len(changes), -fmean(change.mean for change in changes)
    se = math.sqrt(sum(change.se**2 for change in changes if change.se is not None)) / m
    unknown = sum(change.smallest_detectable for change in changes if change.se is None) / m
    return Loss(
        value=value + 0.0,
        low=value - Z_95 * se if se else None,
        high=min(1.0, value + Z_95 * se + unknown),
        smallest_detectable=min(1.0, Z_DETECT * se + unknown),
        n=sum(change.n for change in changes),
    )


def judge_loss(
    rule: RuleName,
    task: str | None,
    loss: Loss,
    threshold: float,
    floor: Metric,
    *,
    strict: bool,
) -> RuleResult:
    """Whether a loss is at most max(threshold, noise floor).

    Args:
        rule: Its name.
        task: None for a mean.
        loss: What was lost.
        threshold: The user's, in score units.
        floor: The noise floor; one without a value leaves the threshold.
        strict: Compare the upper end of the interval in place of the value.
    """
    limit = gate(threshold, floor)
    compared = loss.high if strict else loss.value
    return RuleResult(
        rule=rule,
        task=task,
        value=loss.value,
        low=loss.low,
        high=loss.high,
        n=loss.n,
        limit=limit,
        limit_from="noise floor" if limit > threshold else "option",
        smallest_detectable=loss.smallest_detectable,
        passed=compared <= limit + SLACK,
    )


def judge_score(
    task: str, score: float, interval: Interval | None, n: int, least: float, *, strict: bool
) -> RuleResult:
    """Whether a score is at least what is demanded of it; `strict` compares its lower bound.

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
