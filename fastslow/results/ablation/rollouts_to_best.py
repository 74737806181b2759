"""Does one arm need fewer slow rollouts than another for the same score?

Let F(x) and S(x) be the two arms' true scores after x slow rollouts of a task's own stage. That the
first "needs r times the rollouts of the second, or more" says F(x) <= S(x / r) for every x. Since
more training does not lower S, S at the next point measured after x / r is no lower: where F lies
above even that, as a mean over points, tasks and seeds, r is ruled out. The smallest r that is
ruled out ends the interval above, and with the last point measured before x / r it ends below. So

- points of different spacing are compared without interpolation, and arms that are at their best
  before their first points rule out nothing;
- a race that is missed needs no count: its scores are compared like all others;
- where curves cross, a mean over points may contradict itself, or the counts: there is no interval.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from statistics import fmean
from typing import Literal, NamedTuple

from fastslow.measure.scores.guessing import Guess
from fastslow.measure.stats.over_seeds import ByTask, SeedEstimate
from fastslow.measure.stats.power import power
from fastslow.records.cells import ExampleScores
from fastslow.results.ablation.claim_measures import Effect
from fastslow.results.ablation.records import Point, RunRecord
from fastslow.results.ablation.statistics import clusters_of, estimate, pairs

SHARE = 0.9
"""Of the slow arm's best gain on the mean curve: the score whose rollouts are counted. Its best
point itself is the luckiest of a plateau. Source: ours."""
MISSED = "the target score was not reached on every task"
CROSSED = "the curves cross: what they show of one part of them, another part denies"
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
    guess: Guess | None
    """What guessing scores on the task; None where it was not graded."""

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
                nearest = max((x for x in slow if x <= count * (1 + SLACK)), default=0)
            if nearest:
                steps.append((point.scores, slow[nearest]))
        if not steps:
            return {}
        return {e: fmean(f[e] - s[e] for f, s in steps) for e in sorted(self.examples)}


def rollouts_to_best(both: Sequence[RunRecord], slow: Sequence[RunRecord], goal: float) -> Effect:
    """Slow rollouts that one arm needs, as a share of those that slow-only needs.

    The effect is the ratio of the rollouts until `SHARE` of slow-only's best gain, on the mean
    curves over seeds, summed over tasks; the first measured point counts. The interval is that of
    the module. Tasks on which slow-only never rose above its start and chance are left out.
    """
    paired = pairs(both, slow)
    races = [race for run, partner in paired for race in _races(run, partner)]
    curves = {race.task: _mean_curves([r for r in races if r.task == race.task]) for race in races}
    floor = max((race.floor for race in races), default=0.0)
    curves = {
        task: c
        for task, c in curves.items()
        if _best(c.slow) > max(c.slow[0].mean + floor, _chance(races, task))
    }
    has_curves, races = bool(races), [race for race in races if race.task in curves]
    if not races:
        why = "no seed is finished in both arms, or no learning curve was measured"
        if has_curves:
            why = f"{paired[0][1].arm} never rose above its start or chance: there is no target"
        return Effect(reason=why)
    names = [run.arm for run in paired[0]]
    numbers = _numbers(list(curves.values()), names)
    first, second = (numbers[f"slow rollouts, {name}"] for name in names)
    value = first / second if first is not None and second else None
    reasons = [MISSED] if value is None else []
    clusters = clusters_of([run for pair in paired for run in pair])
    at_par = _estimate(races, 1.0, "next", clusters)
    if isinstance(at_par, str) or at_par.sd is None:
        reasons.append(at_par if isinstance(at_par, str) else "one seed")
        return Effect(value, reason="; ".join(reasons), numbers=numbers, is_decidable=False)
    low, high = _limits(races, clusters)
    if (note := _note(value, low, high)) is not None:
        reasons.append(note)
    if note == CROSSED:
        low = high = None
    return Effect(
        value,
        low,
        high,
        None,
        "; ".join(reasons) or None,
        list(at_par.per_seed.values()),
        numbers,
        power=power(at_par.sources, max(0.0, _advantage(list(curves.values()), goal))),
        excludes_ends=True,
    )


def _note(value: float | None, low: float | None, high: float | None) -> str | None:
    """What a reader must know of the interval, beside the ratio of the counts; None if nothing."""
    if low is None:
        return "no ratio of rollouts is ruled out"
    top = math.inf if high is None else high
    if low >= top or (value is not None and (top <= 1 < value or value < 1 <= low)):
        return CROSSED
    if value is not None and not low <= value <= top:
        return "the interval is of whole curves, the ratio of the first points at the target"
    return None


def _races(run: RunRecord, partner: RunRecord) -> list[_Race]:
    races = []
    for task, both in zip(run.stages, run.curves, strict=True):
        if task not in partner.stages:
            continue
        slow = partner.curves[partner.stages.index(task)]
        if len(both) < 2 or len(slow) < 2:
            continue
        shared = frozenset.intersection(*(frozenset(point.scores) for point in (*both, *slow)))
        if shared:
            floor = max(run.noise_floor, partner.noise_floor)
            races.append(_Race(run.seed, task, both, slow, shared, floor, run.guesses.get(task)))
    return races


def _chance(races: Sequence[_Race], task: str) -> float:
    """What guessing scores on the task; 0 where it was not graded."""
    guesses = [(race.guess, race.examples) for race in races if race.task == task]
    graded = [guess.best_on(sorted(examples)) for guess, examples in guesses if guess]
    return fmean(graded) if graded else 0.0


def _estimate(
    races: Sequence[_Race],
    ratio: float,
    side: Literal["next", "last"],
    clusters: Mapping[str, Mapping[str, str]],
) -> SeedEstimate | str:
    """Mean over tasks and seeds of the races' contrast at this ratio, of tasks all seeds have."""
    contrasts = [(race, race.contrast(ratio, side)) for race in races]
    seeds = defaultdict[str, set[int]](set)
    for race in (race for race, contrast in contrasts if contrast):
        seeds[race.task].add(race.seed)
    values: list[tuple[int, ByTask]] = [
        (race.seed, {race.task: contrast})
        for race, contrast in contrasts
        if contrast and seeds[race.task] == {race.seed for race in races}
    ]
    return estimate(values, "no point to compare with", clusters)


def _limits(
    races: Sequence[_Race], clusters: Mapping[str, Mapping[str, str]]
) -> tuple[float | None, float | None]:
    """The ratios that are ruled out next to those that are not, stepping in from either end.

    Each is tested only if the one before was ruled out, so that their number costs nothing.
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
    least = 0.0 if above else None
    return (below[-1] if below else least), (above[-1] if above else None)


class _MeanPoint(NamedTuple):
    """A point of a task's curve, mean over runs."""

    slow: float
    total: float
    mean: float


class _Curves(NamedTuple):
    """The mean curves of both arms on one task."""

    both: list[_MeanPoint]
    slow: list[_MeanPoint]


def _mean_curves(races: Sequence[_Race]) -> _Curves:
    """Of the races of one task, point by point."""
    sides = []
    for curves in ([race.both for race in races], [race.slow for race in races]):
        side = []
        for column in zip(*curves, strict=False):  # runs that stopped early have fewer
            scores = [
                fmean(point.scores[e] for e in race.examples)
                for point, race in zip(column, races, strict=True)
            ]
            slow, total = fmean(p.slow for p in column), fmean(p.total for p in column)
            side.append(_MeanPoint(slow, total, fmean(scores)))
        sides.append(side)
    return _Curves(*sides)


def _best(curve: Sequence[_MeanPoint]) -> float:
    return max(point.mean for point in curve)


def _numbers(curves: Sequence[_Curves], names: Sequence[str]) -> dict[str, float | None]:
    """Rollouts to the target, summed over tasks; None where an arm misses it on one."""
    hits: list[list[_MeanPoint | None]] = []
    for task in curves:
        start = task.slow[0].mean
        target = start + SHARE * (_best(task.slow) - start)
        hits.append([next((p for p in curve if p.mean >= target), None) for curve in task])
    numbers: dict[str, float | None] = {}
    for name, points in zip(names, zip(*hits, strict=True), strict=True):
        reached = [point for point in points if point is not None]
        is_whole = len(reached) == len(points)
        numbers[f"slow rollouts, {name}"] = sum(p.slow for p in reached) if is_whole else None
        total = sum(p.total for p in reached) if is_whole else None
        numbers[f"fast + slow rollouts, {name}"] = total
        if not is_whole:
            numbers[f"tasks of {len(points)} that {name} missed"] = float(points.count(None))
    return numbers


def _advantage(curves: Sequence[_Curves], goal: float) -> float:
    """Mean contrast at ratio 1 of an arm that follows slow-only's mean curve at `goal`."""
    import numpy as np

    steps = []
    for both, slow in curves:
        counts, scores = [point.slow for point in slow], [point.mean for point in slow]
        for x in (point.slow for point in both if point.slow):
            later = [s for count, s in zip(counts, scores, strict=True) if count >= x]
            if later:
                steps.append(float(np.interp(x / goal, counts, scores)) - later[0])
    return fmean(steps) if steps else 0.0
