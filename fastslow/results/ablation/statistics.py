"""Arms over seeds: their means, and paired differences between them.

Pure functions on run records. Two runs are compared under the same seed, order and examples. With
several orders a seed's figure is the mean over them, so that seeds stay what is counted; a seed
that lacks one of them does not count, since its mean would be of something else.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean

from fastslow.config.ablation import AblationConfig, ReferencesConfig
from fastslow.measure.scores.all_metrics import final_metrics
from fastslow.measure.scores.intransigence import Reference
from fastslow.measure.scores.per_example import PER_EXAMPLE, final_gain, final_scores
from fastslow.measure.stats.over_seeds import (
    ByTask,
    Clusters,
    SeedEstimate,
    average,
    difference,
    over_seeds_alone,
    over_seeds_and_examples,
)
from fastslow.measure.stats.significance import holm
from fastslow.records.row_metrics import mean_kl
from fastslow.results.ablation.records import RunRecord
from fastslow.results.ablation.references import is_reference_of, reference_arms

NOTHING_SHARED = "not measured, or its formula needs other stages than these"
NO_RUN = "no seed is finished"
OTHER_TASKS = "trained on other tasks"
OWN_REFERENCE = "it is the reference itself"
OTHER_METHOD = "no reference run of its own method"
SEED_METRICS = ("forgetting_chaudhry", "intransigence", "fwt_isolated", "fwt_gem", "learning_gain")
"""Metrics whose intervals are over seeds alone."""
SCORES = ("average_accuracy", "learning_accuracy")
"""Metrics that are means of scores, in [0, 1]; all others are means of differences of them."""


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """One arm over its seeds."""

    arm: str
    planned: int
    """Runs in the plan."""
    runs: int
    """Runs that are finished."""
    tasks: tuple[str, ...]
    """Tasks it was trained on."""
    metrics: Mapping[str, SeedEstimate | str]
    """By name, an estimate or the reason why there is none."""
    gains: Mapping[str, SeedEstimate | str]
    """By task of its stages, last row minus row 0."""
    rollouts: Mapping[str, float]
    """Mean over runs, by `fast`, `slow` and `total`; empty without a run."""
    kl: SeedEstimate | str
    """Mean `kl_fst` over trained tasks in the last row."""


@dataclass(frozen=True, slots=True)
class ArmDifference:
    """One arm minus another in one metric, paired."""

    metric: str
    arm: str
    minus: str
    estimate: SeedEstimate | str
    """Or the reason why there is none."""
    holm: float | None
    """Sign-flip p-value adjusted for all differences of the ablation; None without one."""


def arm_summaries(
    records: Sequence[RunRecord], planned: Mapping[str, int], config: AblationConfig
) -> list[ArmSummary]:
    """Every arm with its number of planned runs, those without a finished run too."""
    summaries = []
    for arm, count in planned.items():
        runs = [run for run in records if run.arm == arm]
        metrics = {name: mean_of(runs, values_of) for name, values_of in PER_EXAMPLE.items()}
        metrics |= {name: _seed_metric(runs, name, records, config) for name in SEED_METRICS}
        metrics = {
            name: _within(mean, 0.0 if name in SCORES else -1.0, 1.0)
            for name, mean in metrics.items()
        }
        rollouts = {}
        if runs:
            rollouts = {name: fmean(r.rollouts[name] for r in runs) for name in ("fast", "slow")}
            rollouts["total"] = sum(rollouts.values())
        tasks = tuple(dict.fromkeys(runs[0].stages)) if runs else ()
        gains = {task: mean_of(runs, partial(final_gain, task=task)) for task in tasks}
        gains = {task: _within(gain, -1.0, 1.0) for task, gain in gains.items()}
        kl = _within(_kl(runs), 0.0, math.inf)
        summaries.append(ArmSummary(arm, count, len(runs), tasks, metrics, gains, rollouts, kl))
    return summaries


def mean_of(
    runs: Sequence[RunRecord], values_of: Callable[[RunRecord], ByTask]
) -> SeedEstimate | str:
    """Mean over seeds of the values that `values_of` takes from each run, or why there is none."""
    values = [(run.seed, values_of(run)) for run in complete(runs)]
    return estimate(values, NO_RUN, clusters_of(runs))


def _within(mean: SeedEstimate | str, least: float, most: float) -> SeedEstimate | str:
    """The same mean, its interval cut to the values that there are."""
    if isinstance(mean, str) or mean.low is None or mean.high is None:
        return mean
    return replace(mean, low=max(least, mean.low), high=min(most, mean.high))


def compare(
    treated: Sequence[RunRecord],
    control: Sequence[RunRecord],
    values_of: Callable[[RunRecord], ByTask],
) -> SeedEstimate | str:
    """Mean of `values_of` in one arm minus another, paired by seed, order and example.

    Or the reason where no runs or not the same tasks are shared.
    """
    values: list[tuple[int, ByTask]] = []
    for run, partner in pairs(treated, control):
        if set(run.stages) != set(partner.stages):
            return OTHER_TASKS
        after, before = values_of(run), values_of(partner)
        paired = difference(after, before)
        if after and before and not after.keys() == before.keys() == paired.keys():
            return "means over other tasks or other examples"
        values.append((run.seed, paired))
    clusters = clusters_of([*treated, *control])
    return estimate(values, "no seed is finished in both arms", clusters)


def clusters_of(runs: Iterable[RunRecord]) -> Clusters:
    """By task, the cluster of every example that names one, of all runs together."""
    clusters = defaultdict[str, dict[str, str]](dict)
    for run in runs:
        for task, by_example in run.clusters.items():
            clusters[task].update(by_example)
    return clusters


def pairs(
    treated: Sequence[RunRecord], control: Sequence[RunRecord]
) -> list[tuple[RunRecord, RunRecord]]:
    """Runs of two arms under the same seed and order, of seeds that have every order.

    An arm with stages of its own has one run a seed, the partner of each order of the other arm.
    """
    matches = [
        (run, partner)
        for run in treated
        for partner in control
        if run.seed == partner.seed
        and (run.order == partner.order or None in (run.order, partner.order))
    ]
    orders = {run.order or partner.order for run, partner in matches}
    counts = Counter(run.seed for run, _ in matches)
    return [pair for pair in matches if counts[pair[0].seed] == len(orders)]


def complete(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs of one arm, of the seeds that are finished in every order."""
    orders, of_seed = {run.order for run in runs}, defaultdict[int, set[str | None]](set)
    for run in runs:
        of_seed[run.seed].add(run.order)
    return [run for run in runs if of_seed[run.seed] == orders]


def estimate(
    values: Sequence[tuple[int, ByTask]], why_none: str, clusters: Clusters
) -> SeedEstimate | str:
    """Mean over seeds of the mean over orders, or why there is none."""
    by_seed = defaultdict[int, list[ByTask]](list)
    for seed, by_task in values:
        by_seed[seed].append(by_task)
    if not by_seed:
        return why_none
    if not all(by_task for _, by_task in values):
        return NOTHING_SHARED
    means = {seed: average(orders) for seed, orders in by_seed.items()}
    return over_seeds_and_examples(means, clusters)


def differences(
    records: Sequence[RunRecord], arm: str, others: Sequence[str]
) -> list[ArmDifference]:
    """`arm` minus each of the others in every metric of `PER_EXAMPLE`, Holm over all of them."""
    by_arm = {name: [r for r in records if r.arm == name] for name in (arm, *others)}
    estimates = {
        (metric, minus): compare(by_arm[arm], by_arm[minus], values_of)
        for minus in others
        for metric, values_of in PER_EXAMPLE.items()
    }
    adjusted = holm(
        {
            f"{metric} {minus}": estimate.test.p_value
            for (metric, minus), estimate in estimates.items()
            if not isinstance(estimate, str) and estimate.test is not None
        }
    )
    return [
        ArmDifference(metric, arm, minus, estimate, adjusted.get(f"{metric} {minus}"))
        for (metric, minus), estimate in estimates.items()
    ]


def _seed_metric(
    runs: Sequence[RunRecord], name: str, records: Sequence[RunRecord], config: AblationConfig
) -> SeedEstimate | str:
    """A metric that is not a mean over examples, mean over seeds; references of the same seed."""
    references = reference_arms(name, config.references)
    if any(run.arm in references for run in runs):
        return OWN_REFERENCE
    if runs and references:
        references = tuple(a for a in references if is_reference_of(config, a, runs[0].arm))
        if not references:
            return OTHER_METHOD
    values = defaultdict[int, list[float]](list)
    for run in complete(runs):
        reference = reference_of(records, config.references, run.seed, references)
        metric = final_metrics(run.matrix, noise_floor=run.noise_floor, reference=reference)[name]
        if metric.value is None:
            return metric.reason or "undefined"
        values[run.seed].append(metric.value)
    return _over_seeds(values)


def _over_seeds(values: Mapping[int, Sequence[float]]) -> SeedEstimate | str:
    """Mean over seeds of the mean over orders."""
    if not values:
        return NO_RUN
    return over_seeds_alone({seed: fmean(orders) for seed, orders in values.items()})


def reference_of(
    records: Sequence[RunRecord], references: ReferencesConfig, seed: int, arms: Sequence[str]
) -> Reference | None:
    """The reference run of a seed, of these arms; None where none is finished.

    A joint run that is not finished is not replaced by isolated ones: seeds with other references
    have no mean.
    """
    means = {r.arm: _task_means(r) for r in records if r.seed == seed and r.arm in arms}
    if references.joint is not None and references.joint in arms:
        joint = means.get(references.joint)
        return None if joint is None else Reference("joint", joint)
    scores = {
        task: means[arm][task]
        for task, alone in references.arms_alone().items()
        for arm in alone
        if task in means.get(arm, {})
    }
    return Reference("isolated", scores) if scores else None


def _task_means(run: RunRecord) -> dict[str, float]:
    return {task: fmean(scores.values()) for task, scores in final_scores(run).items() if scores}


def _kl(runs: Sequence[RunRecord]) -> SeedEstimate | str:
    values = defaultdict[int, list[float]](list)
    for run in complete(runs):
        value = mean_kl(run.kl, run.matrix.num_stages, run.stages)
        if value is None:
            return "not measured"
        values[run.seed].append(value)
    return _over_seeds(values)
