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

from fastslow.core.seeds import named_random
from fastslow.measure.stats.figure import Undefined
from fastslow.measure.stats.intervals import Z_95, Z_DETECT
from fastslow.measure.stats.over_seeds import Estimate, over_seeds_alone
from fastslow.measure.stats.significance import MAX_EXACT_SEEDS, SignFlip, holm, sign_flip
from fastslow.results.ablation.claim_measures import (
    gain_ratios,
    kl_at_equal_score,
    probed,
    rollouts_to_best,
)
from fastslow.results.ablation.records import RunRecord
from fastslow.results.ablation.statistics import (
    compare,
    complete,
    final_scores,
    later_gains,
    mean_of,
    pairs,
)

Answer: TypeAlias = Literal["yes", "no", "not decidable"]


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


def judged(
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


def detectable_factor(low: float | None, high: float | None) -> float | None:
    """The factor below 1 that would be found, from the interval of a ratio."""
    if low is None or high is None or low <= 0 or high == low:
        return None
    se = (math.log(high) - math.log(low)) / (2 * Z_95)
    return math.exp(-Z_DETECT * se)


PLASTIC = 0.9
"""Share of the base's gain on a new task from which on plasticity counts as kept. Source: ours."""


def put_to_the_test(records: Sequence[RunRecord], fast_slow: str, slow_only: str) -> list[Claim]:
    """Every claim, in the order of the paper's abstract.

    Args:
        records: Finished runs of an ablation.
        fast_slow: The arm with both channels.
        slow_only: The arm with the slow channel alone, or under one frozen text; same budget.
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
    ratios, logs = list(found.per_seed.values()), None
    # with a seed that missed its target left out, the others would pass for all
    if found.ratio is not None and len(ratios) > 1 and min(ratios) > 0:
        logs = [math.log(ratio) for ratio in ratios]
    return judged(
        "sample_efficiency",
        "Reaches the slow channel's best score with fewer slow rollouts.",
        found.ratio,
        (found.low, found.high),
        boundary=1.0,
        above=False,
        unit="ratio of slow rollouts",
        detectable=detectable_factor(found.low, found.high),
        reason=found.reason,
        distances=logs,
        numbers=found.numbers,
    )


def higher_score(both: Sequence[RunRecord], slow: Sequence[RunRecord]) -> Claim:
    """Difference of average accuracy at the end."""
    return _of_difference(
        "higher_score",
        "Ends with a higher average score at the same budget.",
        compare(both, slow, final_scores),
        _means(both, slow, final_scores),
    )


def continued_acquisition(both: Sequence[RunRecord], slow: Sequence[RunRecord]) -> Claim:
    """Difference of what was gained over the base in the stages after the first."""
    return _of_difference(
        "continued_acquisition",
        "Goes on acquiring: later tasks gain more in their own stages.",
        compare(both, slow, later_gains),
        _means(both, slow, later_gains),
    )


def lower_kl(both: Sequence[RunRecord], slow: Sequence[RunRecord]) -> Claim:
    """KL to the base at the highest score both arms reached on a task, as a ratio.

    Of each arm the row with the lowest `kl_fst` among those at that score or above counts. Tasks
    on which one arm never rose above the base by more than the noise floor have no such score.
    Geometric mean over tasks, then over seeds.
    """
    by_seed: dict[int, list[float]] = {}
    at: dict[str, list[float]] = {}
    reasons: list[str] = []
    for one, other in pairs(both, slow):
        for task in dict.fromkeys(one.matrix.stages):
            try:
                kl, kl_slow = kl_at_equal_score(one, other, task)
            except Undefined as reason:
                reasons.append(str(reason))
                continue
            by_seed.setdefault(one.seed, []).append(math.log(kl / kl_slow))
            at.setdefault(one.arm, []).append(kl)
            at.setdefault(other.arm, []).append(kl_slow)
    logs = over_seeds_alone({s: fmean(v) for s, v in by_seed.items()}) if by_seed else None
    ends = (
        (None, None)
        if logs is None or logs.low is None or logs.high is None
        else (math.exp(logs.low), math.exp(logs.high))
    )
    numbers: dict[str, float | None] = {
        f"kl_fst at equal score, {arm}": fmean(values) for arm, values in at.items()
    }
    numbers["pairs of runs and tasks"] = float(sum(map(len, by_seed.values())))
    numbers["without such a score"] = float(len(reasons))
    why = "; ".join(dict.fromkeys(reasons)) or "no seed is finished in both arms"
    return judged(
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


def plasticity(both: Sequence[RunRecord], slow: Sequence[RunRecord]) -> Claim:
    """Gain of the final weights on a new task over the base's, `probe_gain_ratio` over all seeds.

    Interval by drawing seeds and examples again.
    """
    both, slow = complete(both), complete(slow)
    found, other = probed(both), probed(slow)
    metric = found.metric if found else None
    interval = found.interval if found else None
    reason = "not measured: needs a probe of two seeds at least"
    if found is not None:
        reason = found.metric.reason or found.interval_reason or ""
    ends = (interval.low, interval.high) if interval else (None, None)
    ratios = gain_ratios(both)
    num_seeds = len({run.seed for run in both})
    detectable = None
    if interval is not None and interval.high > interval.low:
        detectable = (interval.high - interval.low) / (2 * Z_95) * Z_DETECT
    return judged(
        "plasticity",
        f"Keeps at least {PLASTIC} of the base's gain on a new task.",
        metric.value if metric else None,
        ends,
        boundary=PLASTIC,
        above=True,
        unit="share of the base's gain",
        detectable=detectable,
        reason=reason or None,
        distances=[ratio - PLASTIC for ratio in ratios] if len(ratios) == num_seeds else None,
        numbers={
            runs[0].arm: estimate.metric.value if estimate else None
            for runs, estimate in ((both, found), (slow, other))
            if runs
        },
    )


def _means(
    both: Sequence[RunRecord],
    slow: Sequence[RunRecord],
    of: Callable[[RunRecord], dict[str, dict[str, float]]],
) -> dict[str, float | None]:
    """Means of the runs that have a partner, so that their difference is the claim's effect."""
    means = {}
    for runs in zip(*pairs(both, slow), strict=True):
        mean = mean_of(runs, of)
        means[runs[0].arm] = None if isinstance(mean, str) else mean.mean
    return means


def _of_difference(
    name: str, statement: str, found: Estimate | str, numbers: Mapping[str, float | None]
) -> Claim:
    if isinstance(found, str):
        return judged(
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
    claim = judged(
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
