"""Means and paired differences over seeds and examples at once.

A figure that is a mean over tasks of a mean over examples varies for two reasons: another seed
trains another policy, another sample of examples asks other questions. Both count here, tasks are
taken as fixed. Pure functions on numbers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev, variance

from fastslow.measure.stats.significance import MAX_EXACT_SEEDS, SignFlip, sign_flip

ByTask = Mapping[str, Mapping[str, float]]
"""Task to example to a value: a score, or a difference of scores."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with what is known of its uncertainty."""

    mean: float
    per_seed: Mapping[int, float]
    """The figure under each seed, in the order of the seeds."""
    sd: float | None
    """Over seeds, Bessel-corrected; None with one."""
    low: float | None
    """Lower end of the 95 % interval; None where nothing has a spread."""
    high: float | None
    detectable: float | None
    """The smallest true difference from 0 that would be found with 80 % power."""
    covers: str
    """What the interval is over: `seeds and examples`, `seeds` or `examples`; or why there is
    none."""
    test: SignFlip | None
    """Exact sign-flip test of the figures of the seeds against 0."""


def over_seeds_and_examples(by_seed: Mapping[int, ByTask]) -> Estimate:
    """Mean over tasks and seeds of values known for each example, with a 95 % interval.

    SE^2 = SE_seeds^2 + SE_examples^2, where SE_seeds is that of the figures of the seeds and
    SE_examples that of each example's mean over seeds, tasks fixed: sqrt(sum_j se_j^2) / m. What
    seeds and examples do to each other is counted twice, so the interval is somewhat too wide.
    Student's t with Satterthwaite's degrees of freedom. With one seed it is over examples alone.

    Args:
        by_seed: Seed to values of every task; at least one seed and one task. Examples that some
            seed lacks are left out.

    Source: Satterthwaite 1946; both sources of variance after Miller 2024 (arXiv 2411.00640).
    """
    seeds = list(by_seed)
    tasks = [task for task in by_seed[seeds[0]] if all(task in by_seed[s] for s in seeds)]
    per_seed: dict[int, float] = {}
    means: dict[str, list[float]] = {}
    for task in tasks:
        shared = set.intersection(*(set(by_seed[seed][task]) for seed in seeds))
        means[task] = [fmean(by_seed[s][task][e] for s in seeds) for e in sorted(shared)]
        for seed in seeds:
            part = fmean(by_seed[seed][task][e] for e in sorted(shared)) / len(tasks)
            per_seed[seed] = per_seed.get(seed, 0.0) + part
    parts = [variance(values) / len(values) for values in means.values() if len(values) > 1]
    examples = _Part(sum(parts) / len(tasks) ** 2, sum(len(v) - 1 for v in means.values()))
    return _estimate(per_seed, examples)


def over_seeds_alone(per_seed: Mapping[int, float]) -> Estimate:
    """Mean over seeds of a figure that is no mean over examples, with a 95 % t interval.

    Args:
        per_seed: At least one seed.
    """
    return _estimate(per_seed, None)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a squared standard error and its degrees of freedom."""

    squared: float
    df: int


def _estimate(per_seed: Mapping[int, float], examples: _Part | None) -> Estimate:
    values = list(per_seed.values())
    mean = fmean(values)
    sd = stdev(values) if len(values) > 1 else None
    known = {
        "seeds": _Part(sd**2 / len(values), len(values) - 1) if sd is not None else None,
        "examples": examples,
    }
    parts = {name: part for name, part in known.items() if part is not None and part.df > 0}
    test = sign_flip(values) if len(values) <= MAX_EXACT_SEEDS else None
    squared = math.fsum(part.squared for part in parts.values())
    if squared <= 1e-24:
        why = "one seed has no spread" if sd is None else "every seed gave the same"
        return Estimate(mean, dict(per_seed), sd, None, None, None, why, test)
    df = squared**2 / math.fsum(part.squared**2 / part.df for part in parts.values())
    se = math.sqrt(squared)
    half = quantile(0.975, df) * se
    detectable = (quantile(0.975, df) + quantile(0.8, df)) * se
    covers = " and ".join(parts)
    return Estimate(mean, dict(per_seed), sd, mean - half, mean + half, detectable, covers, test)


def quantile(p: float, df: float) -> float:
    """The p quantile of Student's t with `df` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, p))


def difference(after: ByTask, before: ByTask) -> dict[str, dict[str, float]]:
    """`after - before` on the examples of both, task by task; tasks without any are left out."""
    made = {
        task: {e: values[e] - before[task][e] for e in values if e in before[task]}
        for task, values in after.items()
        if task in before
    }
    return {task: values for task, values in made.items() if values}


def average(of: Sequence[ByTask]) -> dict[str, dict[str, float]]:
    """Several of them as one, whose mean over tasks is the mean of their means over tasks.

    A task that only some have weighs less: its values are scaled by their share. Examples are those
    that all which have the task share.

    Args:
        of: At least one.
    """
    tasks = list(dict.fromkeys(task for one in of for task in one))
    weight = len(tasks) / max(1, sum(map(len, of)))
    made = {}
    for task in tasks:
        having = [one[task] for one in of if task in one]
        shared = set.intersection(*map(set, having))
        made[task] = {e: weight * sum(values[e] for values in having) for e in sorted(shared)}
    return made
