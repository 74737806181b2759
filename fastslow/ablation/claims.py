"""The claims of Fast-Slow Training put to the test on an ablation: yes, no, or not decidable.

Pure functions on run records of two arms, the one with both channels and the one with the slow
channel alone. An answer needs an interval: yes when all of it is on the claim's side, no when all
of it is on the other, else not decidable, with the smallest effect that would have been found.

Source of the claims: Fast-Slow Training, arXiv 2605.12484; how they are measured is ours.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal, TypeAlias

from fastslow.ablation.efficiency import RESAMPLES, rollouts_to_best
from fastslow.ablation.records import RunRecord
from fastslow.ablation.statistics import compare, final_scores, later_gains, mean_of
from fastslow.errors import EvaluationError
from fastslow.measure.bootstrap import Estimate as ProbeEstimate
from fastslow.measure.figures import Undefined
from fastslow.measure.plasticity import Probe, probe_estimates
from fastslow.measure.seeds_and_examples import Estimate, over_seeds_alone
from fastslow.measure.significance import MAX_EXACT_SEEDS, SignFlip, holm, sign_flip
from fastslow.measure.uncertainty import Z_95, Z_DETECT
from fastslow.seeds import named_random

Answer: TypeAlias = Literal["yes", "no", "not decidable"]
PLASTIC = 0.9
"""Share of the base's gain on a new task from which on plasticity counts as kept. Source: ours."""


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


def put_to_the_test(records: Sequence[RunRecord], fast_slow: str, slow_only: str) -> list[Claim]:
    """Every claim, in the order of the paper's abstract.

    Args:
        records: Finished runs of an ablation.
        fast_slow: The arm with both channels.
        slow_only: The arm with the slow channel alone, at the same budget.
    """
    both = [run for run in records if run.arm == fast_slow]
    slow = [run for run in records if run.arm == slow_only]
    claims = [
        sample_efficiency(both, slow),
        higher_score(both, slow),
        lower_kl(both, slow),
        plasticity(both, slow),
        continued_acquisition(both, slow),
    ]
    adjusted = holm({claim.name: claim.test.p_value for claim in claims if claim.test})
    return [replace(claim, holm=adjusted.get(claim.name)) for claim in claims]


def sample_efficiency(both: Sequence[RunRecord], slow: Sequence[RunRecord]) -> Claim:
    """Slow rollouts until slow-only's best score, as a share of what slow-only needed.

    Pooled over seeds and tasks; the first measured point counts. Interval by drawing seeds, and
    examples of every task, again.
    """
    found = rollouts_to_best(pairs(both, slow), named_random(0, "claims", "efficiency"))
    estimate = None
    if len(found.per_seed) > 1 and all(ratio > 0 for ratio in found.per_seed.values()):
        estimate = [math.log(ratio) for ratio in found.per_seed.values()]
    return _claim(
        "sample_efficiency",
        "Reaches the slow channel's best score with fewer slow rollouts.",
        found.ratio,
        (found.low, found.high),
        boundary=1.0,
        above=False,
        unit="ratio of slow rollouts",
        detectable=_factor(found.low, found.high),
        reason=found.reason,
        distances=estimate,
        numbers=found.numbers,
    )


def higher_score(both: Sequence[RunRecord], slow: Sequence[RunRecord]) -> Claim:
    """Difference of average accuracy at the end."""
    return _of_difference(
        "higher_score",
        "Ends with a higher average score at the same budget.",
        compare(both, slow, final_scores),
        {"fast-slow": _mean(both, final_scores), "slow only": _mean(slow, final_scores)},
    )


def continued_acquisition(both: Sequence[RunRecord], slow: Sequence[RunRecord]) -> Claim:
    """Difference of what was gained over the base in the stages after the first."""
    return _of_difference(
        "continued_acquisition",
        "Goes on acquiring: later tasks gain more in their own stages.",
        compare(both, slow, later_gains),
        {"fast-slow": _mean(both, later_gains), "slow only": _mean(slow, later_gains)},
    )


def lower_kl(both: Sequence[RunRecord], slow: Sequence[RunRecord]) -> Claim:
    """KL to the base at the highest score both arms reached on a task, as a ratio.

    Of each arm the row with the lowest `kl_fst` among those at that score or above counts. Tasks
    on which one arm never rose above the base by more than the noise floor have no such score.
    Geometric mean over tasks, then over seeds.
    """
    by_seed: dict[int, list[float]] = {}
    at = {"fast-slow": list[float](), "slow only": list[float]()}
    reasons: list[str] = []
    for one, other in pairs(both, slow):
        for task in dict.fromkeys(one.matrix.stages):
            try:
                kl, kl_slow = kl_at_equal_score(one, other, task)
            except Undefined as reason:
                reasons.append(str(reason))
                continue
            by_seed.setdefault(one.seed, []).append(math.log(kl / kl_slow))
            at["fast-slow"].append(kl)
            at["slow only"].append(kl_slow)
    logs = over_seeds_alone({s: fmean(v) for s, v in by_seed.items()}) if by_seed else None
    ends = (
        (None, None)
        if logs is None or logs.low is None or logs.high is None
        else (math.exp(logs.low), math.exp(logs.high))
    )
    numbers: dict[str, float | None] = {
        f"kl_fst at equal score, {arm}": fmean(values) if values else None
        for arm, values in at.items()
    }
    numbers["pairs of runs and tasks"] = float(len(at["fast-slow"]))
    why = "; ".join(dict.fromkeys(reasons)) or "no seed is finished in both arms"
    return _claim(
        "lower_kl",
        "Stays nearer to the base at equal score.",
        None if logs is None else math.exp(logs.mean),
        ends,
        boundary=1.0,
        above=False,
        unit="ratio of kl_fst",
        detectable=None if logs is None or logs.detectable is None else math.exp(-logs.detectable),
        reason=why if logs is None else None if logs.low is not None else logs.covers,
        distances=None if logs is None else list(logs.per_seed.values()),
        numbers=numbers,
    )


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


def plasticity(both: Sequence[RunRecord], slow: Sequence[RunRecord]) -> Claim:
    """Gain of the final weights on a new task over the base's, `probe_gain_ratio` over all seeds.

    Interval by drawing seeds and examples again.
    """
    found = _probed(both)
    other = _probed(slow)
    metric = found.metric if found else None
    interval = found.interval if found else None
    reason = "not measured: needs a probe of two seeds at least"
    if found is not None:
        reason = found.metric.reason or found.interval_reason or ""
    ends = (interval.low, interval.high) if interval else (None, None)
    ratios = [ratio for run in both if (ratio := _own_ratio(run)) is not None]
    detectable = None
    if interval is not None and interval.high > interval.low:
        detectable = (interval.high - interval.low) / (2 * Z_95) * Z_DETECT
    return _claim(
        "plasticity",
        f"Keeps at least {PLASTIC} of the base's gain on a new task.",
        metric.value if metric else None,
        ends,
        boundary=PLASTIC,
        above=True,
        unit="share of the base's gain",
        detectable=detectable,
        reason=reason or None,
        distances=[ratio - PLASTIC for ratio in ratios] if len(ratios) == len(both) else None,
        numbers={
            "fast-slow": metric.value if metric else None,
            "slow only": other.metric.value if other else None,
        },
    )


def pairs(
    both: Sequence[RunRecord], slow: Sequence[RunRecord]
) -> list[tuple[RunRecord, RunRecord]]:
    """Runs of the two arms under the same seed and order."""
    others = {(run.seed, run.order): run for run in slow}
    return [(r, others[r.seed, r.order]) for r in both if (r.seed, r.order) in others]


def pooled_probe(runs: Sequence[RunRecord]) -> Probe | None:
    """The probes of several runs as one, a run's seed as the probe's; None without two alike."""
    probes = [run.probe for run in runs if run.probe is not None]
    if len(probes) < 2:
        return None
    try:
        return Probe(
            tuple(curve for probe in probes for curve in probe.tuned),
            tuple(curve for probe in probes for curve in probe.base),
            probes[0].adapter,
        )
    except EvaluationError:
        return None  # probes of different lengths, which a change of configuration leaves behind


def _probed(runs: Sequence[RunRecord]) -> ProbeEstimate | None:
    probe = pooled_probe(runs)
    if probe is None:
        return None
    floor = max(run.noise_floor for run in runs)
    generator = named_random(0, "claims", "plasticity")
    estimates = probe_estimates(probe, generator, noise_floor=floor, resamples=RESAMPLES)
    return estimates["probe_gain_ratio"]


def _own_ratio(run: RunRecord) -> float | None:
    if run.probe is None:
        return None
    tuned, base = (
        fmean(curve.means()[-1] - curve.means()[0] for curve in side)
        for side in (run.probe.tuned, run.probe.base)
    )
    return tuned / base if base > run.noise_floor else None


def _score(run: RunRecord, row: int, task: str) -> float:
    score = run.matrix.rows[row][run.matrix.tasks.index(task)]
    if score is None:
        raise Undefined(f"{task} was not scored in row {row}")
    return score


def _mean(
    runs: Sequence[RunRecord], of: Callable[[RunRecord], dict[str, dict[str, float]]]
) -> float | None:
    found = mean_of(runs, of)
    return None if isinstance(found, str) else found.mean


def _of_difference(
    name: str, statement: str, found: Estimate | str, numbers: Mapping[str, float | None]
) -> Claim:
    if isinstance(found, str):
        return _claim(
            name,
            statement,
            None,
            (None, None),
            boundary=0.0,
            above=True,
            unit="score",
            detectable=None,
            reason=found,
            distances=None,
            numbers=numbers,
        )
    one_seed = "one seed: its interval is over examples alone" if found.sd is None else None
    claim = _claim(
        name,
        statement,
        found.mean,
        (found.low, found.high),
        boundary=0.0,
        above=True,
        unit="score",
        detectable=found.detectable,
        reason=one_seed or (found.covers if found.low is None else None),
        distances=list(found.per_seed.values()),
        numbers=numbers,
    )
    return replace(claim, answer="not decidable") if one_seed else claim


def _claim(
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


def _factor(low: float | None, high: float | None) -> float | None:
    """The factor below 1 that would be found, from the interval of a ratio."""
    if low is None or high is None or low <= 0 or high == low:
        return None
    se = (math.log(high) - math.log(low)) / (2 * Z_95)
    return math.exp(-Z_DETECT * se)
