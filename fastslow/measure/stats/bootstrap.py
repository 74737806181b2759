"""Bootstrap intervals of figures that have no standard error in closed form.

Examples, or the clusters they come in, are drawn again with replacement, the same ones for
everything that is compared, and the figure is computed from each draw; the 2.5 and 97.5 percentiles
are the interval (Efron 1979).
"""

import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import quantiles

from fastslow.core.types import Metric
from fastslow.measure.stats.figure import Undefined
from fastslow.measure.stats.intervals import Interval

RESAMPLES = 1000
LEAST_DEFINED = 0.95
"""Share of draws on which the figure must have a value for an interval to be given."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its interval, or why it has none."""

    metric: Metric
    interval: Interval | None
    """95 %; the value itself may lie outside it where the figure is biased."""
    interval_reason: str | None
    """Why `interval` is None; None when there is one."""


def estimate(
    metric: Metric,
    units: int,
    again: Callable[[Sequence[int]], float],
    generator: random.Random,
    resamples: int = RESAMPLES,
) -> Estimate:
    """Give a figure of `units` units, e.g. examples, its bootstrap interval from >= 40 draws.

    `again` computes it from the units of some indices, some of them several times; it may raise
    `Undefined`.
    """
    if metric.value is None:
        return Estimate(metric, None, metric.reason)
    if units < 2:
        return Estimate(metric, None, "one example has no spread")
    values = []
    for _ in range(resamples):
        try:
            values.append(again(generator.choices(range(units), k=units)))
        except Undefined:
            continue
    return from_draws(metric, values, resamples)


def from_draws(metric: Metric, values: Sequence[float], resamples: int) -> Estimate:
    """Give a figure the interval of its values on draws; those without a value are left out."""
    if len(values) < LEAST_DEFINED * resamples:
        reason = f"undefined in {resamples - len(values)} of {resamples} bootstrap draws"
        return Estimate(metric, None, reason)
    return Estimate(metric, percentile_interval(values), None)


def draw_again(
    generator: random.Random, units: int, clusters: Sequence[Hashable] | None = None
) -> list[int]:
    """Indices of as many units as there are, drawn with replacement, whole clusters at a time."""
    members = defaultdict[Hashable, list[int]](list)
    for index, cluster in enumerate(clusters or range(units)):
        members[cluster].append(index)
    groups = list(members.values())
    return [index for group in generator.choices(groups, k=len(groups)) for index in group]


def percentile_interval(values: Sequence[float]) -> Interval:
    """The middle 95 % of some draws' values, interpolated between neighbours; at least two."""
    low, *_, high = quantiles(values, n=40, method="inclusive")
    return Interval(low, high, "bootstrap")
