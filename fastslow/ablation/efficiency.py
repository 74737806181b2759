"""How many rollouts one arm needs to reach another's best score.

In every stage, the other arm's best point of the learning curve is the target, if it lies above the
point before the stage by more than the noise floor. Counts are those of the first points measured
at the target or above, so that the truth may be up to one interval between points lower. An arm
that misses the target needs more than it spent, and nobody knows how much more.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from fastslow.ablation.records import Point, RunRecord
from fastslow.measure.bootstrap import LEAST_DEFINED, percentile_interval

RESAMPLES = 400
"""Draws of seeds and examples. Source: ours, under a second a claim."""
MISSED = "the best score was not reached in every stage"
LARGE = 1e9
"""Stands for a ratio without bound, of an arm that never reached the target, among draws."""


@dataclass(frozen=True, slots=True)
class RolloutsToBest:
    """Slow rollouts of one arm to another's best, over those the other needed."""

    ratio: float | None
    """Pooled over seeds and stages; None with `reason`."""
    low: float | None
    """Lower end of the 95 % interval."""
    high: float | None
    """None beside `low` where the target was missed in too many draws to give an upper end."""
    reason: str | None
    per_seed: Mapping[int, float]
    """Of the seeds in which every target was reached."""
    numbers: Mapping[str, float | None]


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


@dataclass(frozen=True, slots=True)
class _Counts:
    """Rollouts to the target, summed over stages; infinite where it was missed."""

    both: float
    slow: float
    both_total: float
    slow_total: float
    least: float
    """As `both`, with what was spent where the target was missed."""


def rollouts_to_best(
    pairs: Sequence[tuple[RunRecord, RunRecord]],
    generator: random.Random,
    resamples: int = RESAMPLES,
) -> RolloutsToBest:
    """Compare the learning curves of two arms.

    Args:
        pairs: Runs of the one arm and of the other, same seed and order.
        generator: Of the bootstrap over seeds and examples.
        resamples: Draws, >= 40.
    """
    races = [race for one, other in pairs for race in _races(one, other)]
    plain = {race.task: tuple(sorted(race.examples)) for race in races}
    counts = _summed(races, plain)
    if counts is None:
        return RolloutsToBest(None, None, None, _why(races, pairs), {}, {})
    one, other = (run.arm for run in pairs[0])
    numbers = {
        f"slow rollouts, {one}": counts.both,
        f"slow rollouts, {other}": counts.slow,
        f"fast + slow rollouts, {one}": counts.both_total,
        f"fast + slow rollouts, {other}": counts.slow_total,
    }
    finite = {name: n if math.isfinite(n) else None for name, n in numbers.items()}
    seeds = sorted({race.seed for race in races})
    drawn: list[_Counts] = []
    for _ in range(resamples):
        chosen = generator.choices(seeds, k=len(seeds))
        again = {
            task: tuple(generator.choices(examples, k=len(examples)))
            for task, examples in plain.items()
        }
        found = _summed([race for seed in chosen for race in races if race.seed == seed], again)
        if found is not None:
            drawn.append(found)
    low = high = None
    if len(drawn) >= LEAST_DEFINED * resamples and len(seeds) > 1:
        low = percentile_interval([c.least / c.slow for c in drawn]).low
        high = percentile_interval([min(LARGE, c.both / c.slow) for c in drawn]).high
        high = high if high < LARGE / RESAMPLES else None
    is_reached = math.isfinite(counts.both)
    reason = None if is_reached else MISSED
    if is_reached and low is None:
        reason = "one seed" if len(seeds) == 1 else "undefined in too many bootstrap draws"
    each = {seed: _summed([r for r in races if r.seed == seed], plain) for seed in seeds}
    per_seed = {s: c.both / c.slow for s, c in each.items() if c and math.isfinite(c.both)}
    return RolloutsToBest(
        counts.both / counts.slow if is_reached else None, low, high, reason, per_seed, finite
    )


def _races(one: RunRecord, other: RunRecord) -> list[_Race]:
    made = []
    for task, both in zip(one.matrix.stages, one.curves, strict=True):
        if task not in other.matrix.stages:
            continue
        slow = other.curves[other.matrix.stages.index(task)]
        points = (*both, *slow)
        shared = set.intersection(*(set(point.scores) for point in points))
        if shared and len(both) > 1 and len(slow) > 1:
            floor = max(one.noise_floor, other.noise_floor)
            made.append(_Race(one.seed, task, both, slow, frozenset(shared), floor))
    return made


def _summed(races: Sequence[_Race], examples: Mapping[str, Sequence[str]]) -> _Counts | None:
    """Rollouts to the targets of all races that have one; None where none has."""
    found = [counts for race in races if (counts := _counted(race, examples[race.task]))]
    if not found:
        return None
    return _Counts(
        sum(c.both for c in found),
        sum(c.slow for c in found),
        sum(c.both_total for c in found),
        sum(c.slow_total for c in found),
        sum(c.least for c in found),
    )


def _counted(race: _Race, drawn: Sequence[str]) -> _Counts | None:
    kept = [example for example in drawn if example in race.examples]
    if not kept:
        return None
    slow = [fmean(point.scores[e] for e in kept) for point in race.slow]
    target = max(slow)
    if target <= slow[0] + race.floor or not race.slow[slow.index(target)].slow:
        return None
    first = race.slow[slow.index(target)]
    for point in race.both:
        if fmean(point.scores[e] for e in kept) >= target:
            return _Counts(point.slow, first.slow, point.total, first.total, point.slow)
    return _Counts(math.inf, first.slow, math.inf, first.total, race.both[-1].slow)


def _why(races: Sequence[_Race], pairs: Sequence[tuple[RunRecord, RunRecord]]) -> str:
    if not races:
        return "no seed is finished in both arms, or no learning curve was measured"
    return f"{pairs[0][1].arm} never rose above its start: there is no best score to reach"
