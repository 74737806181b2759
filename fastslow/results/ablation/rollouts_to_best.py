"""How many rollouts one arm needs to reach another's best score.

In every stage, the other arm's best point of the learning curve is the target, if it lies above the
point before the stage by more than the noise floor, and above chance where guessing was graded.
Counts are those of the first points measured at the target or above, so that the truth may be up to
one interval between points lower. An arm that misses the target needs more than it spent, and
nobody knows how much more.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from fastslow.core.seeds import named_random
from fastslow.measure.scores.guessing import Guess
from fastslow.measure.stats.bootstrap import LEAST_DEFINED, percentile_interval
from fastslow.measure.stats.intervals import Z_95, Z_DETECT
from fastslow.results.ablation.claim_measures import RESAMPLES, Effect
from fastslow.results.ablation.records import Point, RunRecord
from fastslow.results.ablation.statistics import pairs

MISSED = "the best score was not reached in every stage"
LARGE = 1e9
"""Stands for a ratio without bound, of an arm that never reached the target, among draws."""


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


class _Counts(NamedTuple):
    """Rollouts to the target, summed over stages; infinite where it was missed."""

    both: float
    slow: float
    both_total: float
    slow_total: float
    least: float
    """As `both`, with the rollouts that were spent where the target was missed."""


def rollouts_to_best(both: Sequence[RunRecord], slow: Sequence[RunRecord]) -> Effect:
    """Slow rollouts until slow-only's best score, as a share of those that slow-only needed.

    Pooled over seeds and tasks; the first measured point counts. Interval by drawing seeds, and
    examples of every task, again.
    """
    paired = pairs(both, slow)
    races = [race for run, partner in paired for race in _races(run, partner)]
    examples = {race.task: tuple(sorted(race.examples)) for race in races}
    counts = _summed(races, examples)
    if counts is None:
        why = "no seed is finished in both arms, or no learning curve was measured"
        if races:
            why = f"{paired[0][1].arm} never rose above its start or chance: there is no target"
        return Effect(reason=why)
    arm, arm_slow = (run.arm for run in paired[0])
    numbers = {
        f"slow rollouts, {arm}": counts.both,
        f"slow rollouts, {arm_slow}": counts.slow,
        f"fast + slow rollouts, {arm}": counts.both_total,
        f"fast + slow rollouts, {arm_slow}": counts.slow_total,
    }
    seeds = sorted({race.seed for race in races})
    low, high = _ratio_interval(races, examples, seeds)
    is_reached = math.isfinite(counts.both)
    reason = None if is_reached else MISSED
    if is_reached and low is None:
        reason = "one seed" if len(seeds) == 1 else "undefined in too many bootstrap draws"
    each = [_summed([race for race in races if race.seed == seed], examples) for seed in seeds]
    ratios = [c.both / c.slow for c in each if c and math.isfinite(c.both)]
    # with a seed that missed its target left out, the others would pass for all
    is_tested = is_reached and len(ratios) > 1 and min(ratios) > 0
    detectable = None
    if low and high is not None and high != low:  # the factor below 1 that would be found
        se = (math.log(high) - math.log(low)) / (2 * Z_95)
        detectable = math.exp(-Z_DETECT * se)
    return Effect(
        counts.both / counts.slow if is_reached else None,
        low,
        high,
        detectable,
        reason,
        [math.log(ratio) for ratio in ratios] if is_tested else (),
        {name: n if math.isfinite(n) else None for name, n in numbers.items()},
    )


def _ratio_interval(
    races: Sequence[_Race], examples: Mapping[str, Sequence[str]], seeds: Sequence[int]
) -> tuple[float | None, float | None]:
    """Interval of the ratio of rollouts, drawing seeds and examples again."""
    generator = named_random(0, "claims", "efficiency")
    draws: list[_Counts] = []
    for _ in range(RESAMPLES):
        chosen = generator.choices(seeds, k=len(seeds))
        again = {task: generator.choices(ids, k=len(ids)) for task, ids in examples.items()}
        chosen_races = [race for seed in chosen for race in races if race.seed == seed]
        draws += filter(None, [_summed(chosen_races, again)])
    if len(draws) < LEAST_DEFINED * RESAMPLES or len(seeds) < 2:
        return None, None
    low = percentile_interval([c.least / c.slow for c in draws]).low
    high = percentile_interval([min(LARGE, c.both / c.slow) for c in draws]).high
    return low, high if high < LARGE / RESAMPLES else None


def _races(run: RunRecord, partner: RunRecord) -> list[_Race]:
    races = []
    for task, both in zip(run.stages, run.curves, strict=True):
        if task not in partner.stages:
            continue
        slow = partner.curves[partner.stages.index(task)]
        shared = frozenset.intersection(*(frozenset(point.scores) for point in (*both, *slow)))
        if shared and len(both) > 1 and len(slow) > 1:
            floor = max(run.noise_floor, partner.noise_floor)
            races.append(_Race(run.seed, task, both, slow, shared, floor, run.guesses.get(task)))
    return races


def _summed(races: Sequence[_Race], examples: Mapping[str, Sequence[str]]) -> _Counts | None:
    """Rollouts to the targets of all races that have one; None where none has."""
    counts = [count for race in races if (count := _counted(race, examples[race.task]))]
    return _Counts(*map(sum, zip(*counts, strict=True))) if counts else None


def _counted(race: _Race, examples: Sequence[str]) -> _Counts | None:
    ids = [example for example in examples if example in race.examples]
    if not ids:
        return None
    slow = [fmean(point.scores[e] for e in ids) for point in race.slow]
    target = max(slow)
    first = race.slow[slow.index(target)]
    chance = race.guess.best_on(ids) if race.guess else 0.0
    if target <= max(slow[0] + race.floor, chance) or not first.slow:
        return None
    for point in race.both:
        if fmean(point.scores[e] for e in ids) >= target:
            return _Counts(point.slow, first.slow, point.total, first.total, point.slow)
    return _Counts(math.inf, first.slow, math.inf, first.total, race.both[-1].slow)
