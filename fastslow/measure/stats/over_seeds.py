"""Means and paired differences over seeds and examples at once.

A figure that is a mean over tasks of a mean over examples varies for two reasons: another seed
trains another policy, another sample of examples asks other questions. Both count here, tasks are
taken as fixed. Pure functions on numbers.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TypeAlias

from fastslow.measure.stats.intervals import cluster_labels, clustered_se
from fastslow.measure.stats.power import Sources
from fastslow.measure.stats.significance import SignFlip, sign_flip

ByTask: TypeAlias = Mapping[str, Mapping[str, float]]
"""Task to example to a value: a score, or a difference of scores."""
Clusters: TypeAlias = Mapping[str, Mapping[str, str]]
"""Task to example to its cluster; an example that is not in it is a cluster of its own."""


@dataclass(frozen=True, slots=True)
class SeedEstimate:
    """A mean and its uncertainty."""

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
    p_value: float | None
    """Two-sided, of mean / standard error under Student's t; None with `low`."""
    covers: str
    """Sources of variance in the interval: `seeds and examples`, `seeds` or `examples`; or why
    there is none."""
    test: SignFlip | None
    """Exact sign-flip test of the figures of the seeds against 0; None with too many to count."""
    sources: Sources
    """By source of variance, its squared standard error and degrees of freedom."""


def over_seeds_and_examples(
    by_seed: Mapping[int, ByTask], clusters: Clusters | None = None
) -> SeedEstimate:
    """Mean over tasks and seeds of values known for each example, with a 95 % interval.

    SE^2 = SE_seeds^2 + SE_examples^2, where SE_seeds is that of the figures of the seeds and
    SE_examples that of each example's mean over seeds, tasks fixed: sqrt(sum_j se_j^2) / m, se_j
    clustered where examples share a source. The interaction of seeds and examples is counted twice,
    so the interval is somewhat too wide.
    Student's t with Satterthwaite's degrees of freedom. With one seed it is over examples alone.

    Needs one seed and one task at least; examples that some seed lacks are left out.

    Source: Satterthwaite 1946; both sources of variance after Miller 2024 (arXiv 2411.00640).
    """
    first, *_ = by_seed.values()
    tasks = [task for task in first if all(task in values for values in by_seed.values())]
    per_seed = dict.fromkeys(by_seed, 0.0)
    square, df = 0.0, 0
    for task in tasks:
        shared = sorted(set.intersection(*(set(values[task]) for values in by_seed.values())))
        means = [fmean(values[task][e] for values in by_seed.values()) for e in shared]
        labels = cluster_labels(shared, (clusters or {}).get(task, {}))
        square += (clustered_se(means, labels) or 0.0) ** 2
        df += len(set(labels)) - 1
        for seed, values in by_seed.items():
            per_seed[seed] += fmean(values[task][e] for e in shared) / len(tasks)
    return _estimate(per_seed, square / len(tasks) ** 2, df)


def over_seeds_alone(per_seed: Mapping[int, float]) -> SeedEstimate:
    """Mean over seeds of a figure that is not a mean over examples, with a 95 % t interval."""
    return _estimate(per_seed, 0.0, 0)


def _estimate(per_seed: Mapping[int, float], of_examples: float, df_examples: int) -> SeedEstimate:
    """From a figure per seed, and the squared standard error over examples with its df."""
    from scipy.special import nctdtrinc, stdtr, stdtrit

    values = list(per_seed.values())
    mean, sd = fmean(values), stdev(values) if len(values) > 1 else None
    # source of variance -> its squared standard error and degrees of freedom
    sources: dict[str, tuple[float, float]] = {}
    if sd is not None:
        sources["seeds"] = (sd**2 / len(values), len(values) - 1)
    if df_examples:
        sources["examples"] = (of_examples, df_examples)
    test = sign_flip(values)
    squared = math.fsum(square for square, _ in sources.values())
    if squared <= 1e-24:
        why = "one seed has no spread" if sd is None else "every seed gave the same"
        return SeedEstimate(mean, dict(per_seed), sd, None, None, None, None, why, test, {})
    df = squared**2 / math.fsum(square**2 / df for square, df in sources.values())
    se, t = math.sqrt(squared), float(stdtrit(df, 0.975))
    return SeedEstimate(
        mean=mean,
        per_seed=dict(per_seed),
        sd=sd,
        low=mean - t * se,
        high=mean + t * se,
        detectable=float(nctdtrinc(df, 0.2, t)) * se,  # beyond t with probability 0.8
        p_value=2 * float(stdtr(df, -abs(mean) / se)),
        covers=" and ".join(sources),
        test=test,
        sources=sources,
    )


def difference(after: ByTask, before: ByTask) -> ByTask:
    """`after - before` on the examples of both, task by task; tasks without any are left out."""
    by_task = {
        task: {e: values[e] - before[task][e] for e in values if e in before[task]}
        for task, values in after.items()
        if task in before
    }
    return {task: values for task, values in by_task.items() if values}


def average(several: Sequence[ByTask]) -> ByTask:
    """Several of them as one, whose mean over tasks is the mean of their means over tasks.

    A task that only some have weighs less: its values are scaled by their share. Examples are those
    that all which have the task share.
    """
    tasks = list(dict.fromkeys(task for by_task in several for task in by_task))
    weight = len(tasks) / max(1, sum(map(len, several)))
    means = {}
    for task in tasks:
        having = [by_task[task] for by_task in several if task in by_task]
        shared = set.intersection(*map(set, having))
        means[task] = {e: weight * sum(values[e] for values in having) for e in sorted(shared)}
    return means
