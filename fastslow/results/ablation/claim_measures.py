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

from fastslow.core.errors import EvaluationError
from fastslow.core.seeds import named_random
from fastslow.measure.scores.curves import LearningCurve
from fastslow.measure.scores.plasticity import Probe, probe_estimates
from fastslow.measure.stats.bootstrap import LEAST_DEFINED, percentile_interval
from fastslow.measure.stats.bootstrap import Estimate as ProbeEstimate
from fastslow.measure.stats.figure import Undefined
from fastslow.results.ablation.records import Point, RunRecord


def kl_at_equal_score(one: RunRecord, other: RunRecord, task: str) -> tuple[float, float]:
    """`kl_fst` of two runs at the highest score on `task` that both reached.

    Raises:
        Undefined: One never rose above the base, or KL was not measured or is 0.
    """
    points = [kl_points(run, task) for run in (one, other)]
    if not all(points):
        raise Undefined(f"KL was not measured on {task}")
    base = max(_score(run, 0, task) for run in (one, other))
    floor = max(one.noise_floor, other.noise_floor)
    best = [max(score for score, _ in found) for found in points]
    for run, top in zip((one, other), best, strict=True):
        if top <= base + floor:
            raise Undefined(f"{run.arm} never rose above the base on {task}")
    first, second = (min(kl for s, kl in found if s >= min(best)) for found in points)
    if first <= 0 or second <= 0:
        raise Undefined(f"a KL on {task} is 0")
    return first, second


def kl_points(run: RunRecord, task: str) -> list[tuple[float, float]]:
    """Score and `kl_fst` of every row from the task's stage on, where both were measured."""
    first = run.matrix.stages.index(task) + 1
    column = run.matrix.tasks.index(task)
    rows = [
        (run.matrix.rows[row][column], run.kl.get((row, task)))
        for row in range(first, run.matrix.num_stages + 1)
    ]
    return [(score, kl) for score, kl in rows if score is not None and kl is not None]


def _score(run: RunRecord, row: int, task: str) -> float:
    score = run.matrix.rows[row][run.matrix.tasks.index(task)]
    if score is None:
        raise Undefined(f"{task} was not scored in row {row}")
    return score


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


def pooled_probe(runs: Sequence[RunRecord]) -> Probe | None:
    """The probes of several runs as one with a curve per seed; None without two seeds alike.

    A run's seed counts as the probe's: what a seed has in several orders, or from several fresh
    runs, is one mean curve, because it is no further seed.
    """
    by_seed: dict[int, list[Probe]] = {}
    for run in runs:
        if run.probe is not None:
            by_seed.setdefault(run.seed, []).append(run.probe)
    if len(by_seed) < 2:
        return None
    probes = [probe for found in by_seed.values() for probe in found]
    try:
        _joined(probes)
    except EvaluationError:
        return None  # probes of different lengths, which a change of configuration leaves behind
    means = [_joined(found) for found in by_seed.values()]
    return Probe(
        tuple(_mean_curve(probe.tuned) for probe in means),
        tuple(_mean_curve(probe.base) for probe in means),
        probes[0].adapter,
    )


def _joined(probes: Sequence[Probe]) -> Probe:
    return Probe(
        tuple(curve for probe in probes for curve in probe.tuned),
        tuple(curve for probe in probes for curve in probe.base),
        probes[0].adapter,
    )


def _mean_curve(curves: Sequence[LearningCurve]) -> LearningCurve:
    """Mean score of each example at each point."""
    points = zip(*(curve.scores for curve in curves), strict=True)
    scores = tuple(tuple(map(fmean, zip(*rows, strict=True))) for rows in points)
    return LearningCurve(curves[0].unit, curves[0].at, scores)


def probed(runs: Sequence[RunRecord]) -> ProbeEstimate | None:
    """`probe_gain_ratio` over the probes of several runs, with its interval."""
    probe = pooled_probe(runs)
    if probe is None:
        return None
    floor = max(run.noise_floor for run in runs)
    generator = named_random(0, "claims", "plasticity")
    estimates = probe_estimates(probe, generator, noise_floor=floor, resamples=RESAMPLES)
    return estimates["probe_gain_ratio"]


def gain_ratios(runs: Sequence[RunRecord]) -> list[float]:
    """The same of every seed, without intervals; not of seeds whose base gained nothing."""
    probe = pooled_probe(runs)
    if probe is None:
        return []
    floor = max(run.noise_floor for run in runs)
    gains = [
        tuple(curve.means()[-1] - curve.means()[0] for curve in curves)
        for curves in zip(probe.tuned, probe.base, strict=True)
    ]
    return [tuned / base for tuned, base in gains if base > floor]
