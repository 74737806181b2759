"""The effects that the claims are about, measured on the runs of two arms with their intervals."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, geometric_mean

from fastslow.core.seeds import named_random
from fastslow.measure.scores.curves import LearningCurve
from fastslow.measure.scores.plasticity import Probe, probe_estimates
from fastslow.measure.stats.figure import Undefined
from fastslow.measure.stats.intervals import Z_95, Z_DETECT
from fastslow.measure.stats.over_seeds import ByTask, over_seeds_alone
from fastslow.measure.stats.power import power
from fastslow.results.ablation.records import RunRecord
from fastslow.results.ablation.statistics import compare, complete, mean_of, pairs

RESAMPLES = 4000
"""Draws of seeds and examples: with a tenth of them ends, and answers with them, hung on the draws.
Source: ours, under a second a claim."""
PLASTIC = 0.9
"""Share of the base's gain on a new task from which on plasticity counts as kept. Source: ours."""


@dataclass(frozen=True, slots=True)
class Effect:
    """The measured side of a claim."""

    value: float | None = None
    low: float | None = None
    """Lower end of the 95 % interval."""
    high: float | None = None
    """None next to `low` where too many draws give no upper end."""
    detectable: float | None = None
    """As `Claim.detectable`."""
    reason: str | None = None
    """Why there is no value, no interval, or none over seeds."""
    distances: Sequence[float] = ()
    """Of each seed from the claim's boundary, on the scale that is tested; empty for no test."""
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    """The figures behind the effect, by name."""
    is_decidable: bool = True
    power: float | None = None
    """Probability that this design finds the goal's effect; None where it has no interval."""
    excludes_ends: bool = False
    """Whether the ends of the interval are themselves ruled out."""


def score_difference(
    both: Sequence[RunRecord],
    slow: Sequence[RunRecord],
    goal: float,
    values_of: Callable[[RunRecord], ByTask],
) -> Effect:
    """Paired difference of a mean over tasks and examples; power is to find `goal`."""
    means = {}
    for runs in zip(*pairs(both, slow), strict=True):
        # of the runs that have a partner, so that their difference is the effect
        mean = mean_of(runs, values_of)
        means[runs[0].arm] = None if isinstance(mean, str) else mean.mean
    estimate = compare(both, slow, values_of)
    if isinstance(estimate, str):
        return Effect(reason=estimate, numbers=means)
    is_one_seed = estimate.sd is None
    reason = estimate.covers if estimate.low is None else None
    return Effect(
        estimate.mean,
        estimate.low,
        estimate.high,
        estimate.detectable,
        "one seed: its interval is over examples alone" if is_one_seed else reason,
        list(estimate.per_seed.values()),
        means,
        is_decidable=not is_one_seed,
        power=None if is_one_seed else power(estimate.sources, goal),
    )


def kl_ratio(both: Sequence[RunRecord], slow: Sequence[RunRecord], goal: float) -> Effect:
    """KL to the base at the highest score both arms reached on a task, as a ratio.

    Of each arm the row with the lowest `kl_fst` among those at that score or above counts. Tasks
    on which one arm never rose above the base by more than the noise floor, or above chance, have
    no such score. Geometric mean over the tasks that have one under every seed, then over seeds.
    """
    by_task = defaultdict[str, list[tuple[int, float, float]]](list)
    reasons: list[str] = []
    paired = pairs(both, slow)
    for run, partner in paired:
        for task in dict.fromkeys(run.stages):
            try:
                by_task[task] += [(run.seed, *_kl_at_equal_score(run, partner, task))]
            except Undefined as reason:
                reasons.append(str(reason))
    seeds = {run.seed for run, _ in paired}
    by_seed, kls, kls_slow = defaultdict[int, list[float]](list), list[float](), list[float]()
    for points in by_task.values():
        for seed, kl, kl_slow in points if {seed for seed, *_ in points} == seeds else ():
            by_seed[seed].append(math.log(kl / kl_slow))
            kls.append(kl)
            kls_slow.append(kl_slow)
    numbers: dict[str, float | None] = {}
    if kls:
        for member, values in zip(paired[0], (kls, kls_slow), strict=True):
            numbers[f"kl_fst at equal score, {member.arm}"] = geometric_mean(values)
    numbers["pairs of runs and tasks"] = float(len(kls))
    numbers["without such a score"] = float(len(reasons))
    if not kls:
        reasons += ["no task has such a score under every seed"] if any(by_task.values()) else []
        unmeasured = "; ".join(dict.fromkeys(reasons)) or "no seed is finished in both arms"
        return Effect(reason=unmeasured, numbers=numbers)
    logs = over_seeds_alone({seed: fmean(values) for seed, values in sorted(by_seed.items())})
    low = high = detectable = None
    if logs.low is not None and logs.high is not None and logs.detectable is not None:
        low, high = math.exp(logs.low), math.exp(logs.high)
        detectable = math.exp(-logs.detectable)
    why = logs.covers if low is None else None
    distances = list(logs.per_seed.values())
    chance = power(logs.sources, math.log(goal))
    value = math.exp(logs.mean)
    return Effect(value, low, high, detectable, why, distances, numbers, power=chance)


def _kl_at_equal_score(run: RunRecord, partner: RunRecord, task: str) -> tuple[float, float]:
    """`kl_fst` of two runs at the highest score on `task` that both reached, or `Undefined`."""
    both = (run, partner)
    points = [kl_points(member, task) for member in both]
    if not all(points):
        raise Undefined(f"KL was not measured on {task}")
    starts = [member.matrix.rows[0][member.matrix.tasks.index(task)] for member in both]
    measured = [score for score in starts if score is not None]
    if len(measured) < 2:
        raise Undefined(f"{task} was not scored in row 0")
    base = max(measured) + max(member.noise_floor for member in both)
    guesses = [member.guesses[task] for member in both if task in member.guesses]
    chance = max((guess.best_on(guess.constant) for guess in guesses), default=0.0)
    best = [max(score for score, _ in rows) for rows in points]
    for member, top in zip(both, best, strict=True):
        if top <= max(base, chance):
            level = "the base" if top <= base else "chance"
            raise Undefined(f"{member.arm} never rose above {level} on {task}")
    first, second = (min(kl for score, kl in rows if score >= min(best)) for rows in points)
    if first <= 0 or second <= 0:
        raise Undefined(f"a KL on {task} is 0")
    return first, second


def kl_points(run: RunRecord, task: str) -> list[tuple[float, float]]:
    """Score and `kl_fst` of every row from the task's stage on, where both were measured."""
    first = run.stages.index(task) + 1
    column = run.matrix.tasks.index(task)
    rows = [
        (run.matrix.rows[row][column], run.kl.get((row, task)))
        for row in range(first, run.matrix.num_stages + 1)
    ]
    return [(score, kl) for score, kl in rows if score is not None and kl is not None]


def plasticity_share(both: Sequence[RunRecord], slow: Sequence[RunRecord], goal: float) -> Effect:
    """Gain of the final weights on a new task over the base's, `probe_gain_ratio` over all seeds.

    Interval by drawing seeds and examples again.
    """
    effects: list[Effect | None] = []
    numbers: dict[str, float | None] = {}
    for runs in (complete(both), complete(slow)):
        probe = pooled_probe(runs)
        effects.append(_gain_ratio(probe, runs, goal) if probe else None)
        if runs:
            numbers[runs[0].arm] = effects[-1].value if effects[-1] else None
    if effects[0] is None:
        return Effect(reason="not measured: needs a probe of two seeds at least", numbers=numbers)
    return replace(effects[0], numbers=numbers)


def _gain_ratio(probe: Probe, runs: Sequence[RunRecord], goal: float) -> Effect:
    """`probe_gain_ratio` over the probes of several runs; tested if every seed's base gained."""
    floor = max(run.noise_floor for run in runs)
    generator = named_random(0, "claims", "plasticity")
    [ratio] = probe_estimates(
        probe, generator, noise_floor=floor, resamples=RESAMPLES, names={"probe_gain_ratio"}
    ).values()
    low = high = detectable = chance = None
    if ratio.interval is not None:
        low, high = ratio.interval.low, ratio.interval.high
        se = (high - low) / (2 * Z_95)
        detectable = se * Z_DETECT if se else None
        chance = power({"draws": (se**2, RESAMPLES)}, goal - PLASTIC)
    gains = [
        tuple(curve.means()[-1] - curve.means()[0] for curve in curves)
        for curves in zip(probe.tuned, probe.base, strict=True)
    ]
    distances = [tuned / base - PLASTIC for tuned, base in gains if base > floor]
    if len(distances) < len({run.seed for run in runs}):
        distances = []
    reason = ratio.metric.reason or ratio.interval_reason
    return Effect(ratio.metric.value, low, high, detectable, reason, distances, power=chance)


def pooled_probe(runs: Sequence[RunRecord]) -> Probe | None:
    """The probes of several runs as one with a curve per seed; None without two seeds alike.

    A run's seed counts as the probe's: the probes of a seed in several orders, or from several
    fresh runs, give one mean curve, because they are not further seeds.
    """
    by_seed = defaultdict[int, list[Probe]](list)
    for run in runs:
        if run.probe is not None:
            by_seed[run.seed].append(run.probe)
    probes = [probe for of_seed in by_seed.values() for probe in of_seed]
    # a change of configuration leaves probes of different lengths behind
    if len(by_seed) < 2 or len({probe.base[0].shape for probe in probes}) > 1:
        return None
    tuned = [[c for probe in of_seed for c in probe.tuned] for of_seed in by_seed.values()]
    base = [[c for probe in of_seed for c in probe.base] for of_seed in by_seed.values()]
    adapter = probes[0].adapter
    return Probe(tuple(map(_mean_curve, tuned)), tuple(map(_mean_curve, base)), adapter)


def _mean_curve(curves: Sequence[LearningCurve]) -> LearningCurve:
    """Mean score of each example at each point."""
    points = zip(*(curve.scores for curve in curves), strict=True)
    scores = tuple(tuple(map(fmean, zip(*rows, strict=True))) for rows in points)
    return LearningCurve(curves[0].unit, curves[0].counts, scores)
