"""Does one arm need fewer slow rollouts than another for the same score?

Let F(x) and S(x) be the two arms' true scores after x slow rollouts of a task's own stage. That the
first "needs r times the rollouts of the second, or more" says F(x) <= S(x / r) for every x. Since
more training does not lower S, S at the next point measured after x / r is no lower: where F lies
above even that, as a mean over points, tasks and seeds, r is ruled out. The smallest r that is
ruled out ends the interval above, and with the last point measured before x / r it ends below. So

- points of different spacing are compared without interpolation, and arms that are at their best
  before their first points rule out nothing;
- a race that is missed needs no count: its scores are compared like all others.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean
from typing import Literal

from fastslow.measure.stats.over_seeds import ByTask, SeedEstimate
from fastslow.measure.stats.power import power
from fastslow.results.ablation.claim_measures import Effect
from fastslow.results.ablation.records import Point, RunRecord
from fastslow.results.ablation.statistics import clusters_of, estimate, pairs
from fastslow.results.report.cells import ExampleScores

SHARE = 0.9
"""Of the slow arm's best gain on the mean curve: the score whose rollouts are counted. Its best
point itself is the luckiest of a plateau. Source: ours."""
MISSED = "the target score was not reached on every task"
SLACK = 1e-9
"""Of a count of rollouts, for rounding."""


@dataclass(frozen=True, slots=True)
class _Race:
    """One stage of two paired runs."""

    seed: int
    task: str
    both: tuple[Point, ...]
    slow: tuple[Point, ...]
    examples: frozenset[str]
    """Those that every point of both has."""
    floor: float

    def contrast(self, ratio: float, side: Literal["next", "last"]) -> dict[str, float]:
        """By example, F(x) - S at the `next` or `last` point from x / ratio on, mean over x > 0.

        Nothing where no point is measured on that side.
        """
        # of several points at a count the last, after the prompts that were found there
        slow = {point.slow: point.scores for point in self.slow}
        steps: list[tuple[ExampleScores, ExampleScores]] = []
        for point in (point for point in self.both if point.slow):
            count = point.slow / ratio
            if side == "next":
                nearest = min((x for x in slow if x >= count * (1 - SLACK)), default=0)
            else:
                nearest = max(x for x in slow if x <= count * (1 + SLACK))
            if nearest:
                steps.append((point.scores, slow[nearest]))
        if not steps:
            return {}
        return {e: fmean(f[e] - s[e] for f, s in steps) for e in sorted(self.examples)}


def rollouts_to_best(both: Sequence[RunRecord], slow: Sequence[RunRecord], goal: float) -> Effect:
    """Slow rollouts that one arm needs, as a share of those that slow-only needs.

    The effect is the ratio of the rollouts until `SHARE` of slow-only's best gain, on the mean
    curves over seeds, summed over tasks; the first measured point counts. The interval is that of
    the module. Tasks on which slow-only never rose have no score to reach and are left out.
    """
    paired = pairs(both, slow)
    races = [race for run, partner in paired for race in _races(run, partner)]
    rising = [race for race in races if _rises([r for r in races if r.task == race.task])]
    if not rising:
        why = "no seed is finished in both arms, or no learning curve was measured"
        if races:
            why = f"{paired[0][1].arm} never rose above its start: there is no best score to reach"
        return Effect(reason=why)
    numbers = _numbers(rising, paired[0][0].arm, paired[0][1].arm)
    counts = [numbers[f"slow rollouts, {run.arm}"] for run in paired[0]]
    first, second = counts
    value = first / second if first is not None and second else None
    reason = MISSED if value is None else None
    is_one_seed = len({race.seed for race in rising}) == 1
    clusters = clusters_of([run for pair in paired for run in pair])
    at_par = _estimate(rising, 1.0, "next", clusters)
    if isinstance(at_par, str) or is_one_seed:
        return Effect(value, reason=reason or "one seed", numbers=numbers, is_decidable=False)
    low, high = _limits(rising, clusters)
    return Effect(
        value,
        low,
        high,
        None,
        reason,
        list(at_par.per_seed.values()),
        numbers,
        power=power(at_par.sources, _advantage(rising, goal)),
        excludes_ends=True,
    )


def _races(run: RunRecord, partner: RunRecord) -> list[_Race]:
    races = []
    for task, both in zip(run.stages, run.curves, strict=True):
        if task not in partner.stages:
            continue
        slow = partner.curves[partner.stages.index(task)]
        shared = frozenset.intersection(*(frozenset(point.scores) for point in (*both, *slow)))
        if shared and len(both) > 1 and len(slow) > 1:
            floor = max(run.noise_floor, partner.noise_floor)
            races.append(_Race(run.seed, task, both, slow, shared, floor))
    return races


def _estimate(
    races: Sequence[_Race],
    ratio: float,
    side: Literal["next", "last"],
    clusters: Mapping[str, Mapping[str, str]],
) -> SeedEstimate | str:
    """Mean over tasks and seeds of the races' contrast at this ratio."""
    values: list[tuple[int, ByTask]] = [
        (race.seed, {race.task: contrast})
        for race in races
        if (contrast := race.contrast(ratio, side))
    ]
    return estimate(values, "no point to compare with", clusters)


def _limits(
    races: Sequence[_Race], clusters: Mapping[str, Mapping[str, str]]
) -> tuple[float, float | None]:
    """The ratios next to those that are ruled out, stepping in from either end.

    Each step is tested only if the one before was ruled out, so that their number costs nothing.
    """
    counts = {(p.slow, q.slow) for race in races for p in race.both for q in race.slow}
    ratios = sorted({first / second for first, second in counts if first and second})

    def is_too_large(ratio: float) -> bool:
        contrast = _estimate(races, ratio, "next", clusters)
        return not isinstance(contrast, str) and (contrast.low or 0.0) > 0

    def is_too_small(ratio: float) -> bool:
        contrast = _estimate(races, ratio, "last", clusters)
        return not isinstance(contrast, str) and (contrast.high or 0.0) < 0

    above = list(takewhile(is_too_large, reversed(ratios)))
    below = list(takewhile(is_too_small, ratios))
    return (below[-1] if below else 0.0), (above[-1] if above else None)


def _curve(points: Sequence[Sequence[Point]], examples: Sequence[frozenset[str]]) -> list[Point]:
    """The mean over runs of curves, point by point, under one made-up example."""
    means = []
    for column in zip(*points, strict=False):  # runs that stopped early have fewer
        sides = zip(column, examples, strict=True)
        score = fmean(fmean(point.scores[e] for e in ids) for point, ids in sides)
        slow, total = (round(fmean(getattr(p, key) for p in column)) for key in ("slow", "total"))
        means.append(Point(slow, total, {"mean": score}))
    return means


def _mean_curves(races: Sequence[_Race]) -> tuple[list[Point], list[Point]]:
    """Of one task, the mean curves of both arms over the seeds."""
    examples = [race.examples for race in races]
    both, slow = ([race.both for race in races], [race.slow for race in races])
    return _curve(both, examples), _curve(slow, examples)


def _rises(races: Sequence[_Race]) -> bool:
    """Whether slow-only's mean curve on this task rises above its start."""
    start, *later = [point.scores["mean"] for point in _mean_curves(races)[1]]
    return max(later) > start + max(race.floor for race in races)


def _by_task(races: Sequence[_Race]) -> list[tuple[list[Point], list[Point]]]:
    tasks = dict.fromkeys(race.task for race in races)
    return [_mean_curves([race for race in races if race.task == task]) for task in tasks]


def _numbers(races: Sequence[_Race], arm: str, arm_slow: str) -> dict[str, float | None]:
    """Rollouts to the target, summed over tasks; None where an arm misses it on one."""
    sums = {kind: [0.0, 0.0] for kind in ("slow", "fast + slow")}
    missed = 0
    for curves in _by_task(races):
        start, best = curves[1][0].scores["mean"], max(p.scores["mean"] for p in curves[1])
        target = start + SHARE * (best - start)
        for side, curve in enumerate(curves):
            hits = [point for point in curve if point.scores["mean"] >= target]
            missed += not hits
            sums["slow"][side] += hits[0].slow if hits else math.inf
            sums["fast + slow"][side] += hits[0].total if hits else math.inf
    numbers = {
        f"{kind} rollouts, {name}": count if math.isfinite(count) else None
        for kind, both in sums.items()
        for name, count in zip((arm, arm_slow), both, strict=True)
    }
    return numbers | {"tasks": float(len(_by_task(races))), "tasks that missed": float(missed)}


def _advantage(races: Sequence[_Race], goal: float) -> float:
    """Mean contrast at ratio 1 of an arm that follows slow-only's mean curve at `goal`."""
    import numpy as np

    steps = []
    for both, slow in _by_task(races):
        counts, scores = [p.slow for p in slow], [p.scores["mean"] for p in slow]
        for x in (point.slow for point in both if point.slow):
            after = [s for count, s in zip(counts, scores, strict=True) if count >= x]
            if after:
                steps.append(float(np.interp(x / goal, counts, scores)) - after[0])
    return fmean(steps) if steps else 0.0
