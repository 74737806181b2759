"""Arms over seeds: their means, and paired differences between them.

Pure functions on run records. Two runs are compared under the same seed, order and examples. With
several orders a seed's figure is the mean over them, so that seeds stay what is counted; a seed
that lacks one of them does not count, since its mean would be of something else.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeAlias

from fastslow.config.ablation import ReferencesConfig
from fastslow.measure.scores.all_metrics import final_metrics
from fastslow.measure.scores.intransigence import Reference
from fastslow.measure.stats.over_seeds import (
    Estimate,
    average,
    difference,
    over_seeds_alone,
    over_seeds_and_examples,
)
from fastslow.measure.stats.significance import holm
from fastslow.results.ablation.records import RunRecord

Examples: TypeAlias = dict[str, dict[str, float]]
"""Task to example to value."""


def final_scores(run: RunRecord) -> Examples:
    """Score of every trained task in the last row: its mean is `average_accuracy`."""
    last = run.matrix.num_stages
    tasks = dict.fromkeys(run.matrix.stages)
    return _of_all(tasks, {task: dict(run.cells[last, task]) for task in tasks})


def learned_scores(run: RunRecord) -> Examples:
    """Score of every task right after its stage: its mean is `learning_accuracy`.

    Nothing where a task was visited twice.
    """
    stages = run.matrix.stages
    if len(set(stages)) < len(stages):
        return {}
    learned = {task: dict(run.cells[i, task]) for i, task in enumerate(stages, start=1)}
    return _of_all(stages, learned)


def changes(run: RunRecord) -> Examples:
    """Last row minus the row it was learned in, of all but the last task: `bwt_gem`."""
    return _of_all(run.matrix.stages[:-1], difference(final_scores(run), learned_scores(run)))


def later_gains(run: RunRecord) -> Examples:
    """What was gained over the base in the stage of each task but the first."""
    later = run.matrix.stages[1:]
    base = {task: run.cells[0, task] for task in later}
    return _of_all(later, difference(learned_scores(run), base))


def _of_all(tasks: Iterable[str], found: Examples) -> Examples:
    """What was found of these tasks; nothing where one of them is missing."""
    kept = {task: found.get(task, {}) for task in tasks}
    return kept if all(kept.values()) else {}


COMPARED: Mapping[str, Callable[[RunRecord], Examples]] = {
    "average_accuracy": final_scores,
    "learning_accuracy": learned_scores,
    "bwt_gem": changes,
}
"""Metrics that are means over tasks of means over examples, by which arms are compared."""

NOTHING_SHARED = "not measured, or its formula needs other stages than these"
NO_RUN = "no seed is finished"
OTHER_TASKS = "trained on other tasks"
OWN_REFERENCE = "it is the reference itself"
SEED_METRICS = ("forgetting_chaudhry", "intransigence", "fwt_isolated", "fwt_gem", "learning_gain")
"""Metrics whose intervals are over seeds alone."""


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
    metrics: Mapping[str, Estimate | str]
    """By name, an estimate or the reason why there is none."""
    rollouts: Mapping[str, float]
    """Mean over runs, by `fast`, `slow` and `total`; empty without a run."""
    kl: Estimate | str
    """Mean `kl_fst` over trained tasks in the last row."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One arm minus another in one metric, paired."""

    metric: str
    arm: str
    minus: str
    estimate: Estimate | str
    """Or the reason why there is none."""
    holm: float | None
    """Sign-flip p-value adjusted for all differences of the ablation; None without one."""


def arm_summaries(
    records: Sequence[RunRecord], planned: Mapping[str, int], references: ReferencesConfig
) -> list[ArmSummary]:
    """Every arm, those without a finished run too.

    Args:
        records: Finished runs.
        planned: Runs of every arm.
        references: Which arms are reference runs.
    """
    return [
        _summary(arm, count, [r for r in records if r.arm == arm], records, references)
        for arm, count in planned.items()
    ]


def _summary(
    arm: str,
    planned: int,
    own: Sequence[RunRecord],
    records: Sequence[RunRecord],
    references: ReferencesConfig,
) -> ArmSummary:
    metrics: dict[str, Estimate | str] = {name: mean_of(own, of) for name, of in COMPARED.items()}
    for name in SEED_METRICS:
        metrics[name] = _seed_metric(own, name, records, references)
    spent = {name: fmean(r.rollouts[name] for r in own) for name in ("fast", "slow") if own}
    return ArmSummary(
        arm=arm,
        planned=planned,
        runs=len(own),
        tasks=tuple(dict.fromkeys(own[0].matrix.stages)) if own else (),
        metrics=metrics,
        rollouts=spent | {"total": sum(spent.values())} if own else {},
        kl=_kl(own),
    )


def mean_of(runs: Sequence[RunRecord], of: Callable[[RunRecord], Examples]) -> Estimate | str:
    """Mean over seeds of what `of` takes from each run, or why there is none."""
    return _estimate([(run.seed, of(run)) for run in complete(runs)], NO_RUN)


def compare(
    treated: Sequence[RunRecord],
    control: Sequence[RunRecord],
    of: Callable[[RunRecord], Examples],
) -> Estimate | str:
    """Mean of `of` in one arm minus another, paired by seed, order and example.

    Args:
        treated: Finished runs of the one arm.
        control: Of the other.
        of: Values of one run.

    Returns:
        The reason where no runs or not the same tasks are shared.
    """
    found: list[tuple[int, Examples]] = []
    for one, other in pairs(treated, control):
        if set(one.matrix.stages) != set(other.matrix.stages):
            return OTHER_TASKS
        after, before = of(one), of(other)
        paired = difference(after, before)
        if after and before and not after.keys() == before.keys() == paired.keys():
            return "means over other tasks or other examples"
        found.append((one.seed, paired))
    return _estimate(found, "no seed is finished in both arms")


def pairs(
    treated: Sequence[RunRecord], control: Sequence[RunRecord]
) -> list[tuple[RunRecord, RunRecord]]:
    """Runs of two arms under the same seed and order, of seeds that have every order.

    An arm with stages of its own has one run a seed, which stands beside each order of the other.
    """
    found = [
        (one, other)
        for one in treated
        for other in control
        if one.seed == other.seed and (one.order == other.order or None in (one.order, other.order))
    ]
    orders = {one.order or other.order for one, other in found}
    counts = Counter(one.seed for one, _ in found)
    return [pair for pair in found if counts[pair[0].seed] == len(orders)]


def complete(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs of one arm, of the seeds that are finished in every order."""
    orders, of_seed = {run.order for run in runs}, defaultdict[int, set[str | None]](set)
    for run in runs:
        of_seed[run.seed].add(run.order)
    return [run for run in runs if of_seed[run.seed] == orders]


def _estimate(found: Sequence[tuple[int, Examples]], why_none: str) -> Estimate | str:
    """Mean over seeds of the mean over orders, or why there is none."""
    by_seed: dict[int, list[Examples]] = {}
    for seed, values in found:
        by_seed.setdefault(seed, []).append(values)
    if not by_seed:
        return why_none
    if not all(values for _, values in found):
        return NOTHING_SHARED
    return over_seeds_and_examples({seed: average(of) for seed, of in by_seed.items()})


def differences(records: Sequence[RunRecord], arm: str, others: Sequence[str]) -> list[Difference]:
    """`arm` minus each of the others in every metric of `COMPARED`, Holm over all of them."""
    by_arm = {name: [r for r in records if r.arm == name] for name in (arm, *others)}
    found = {
        (metric, other): compare(by_arm[arm], by_arm[other], of)
        for other in others
        for metric, of in COMPARED.items()
    }
    tested = {
        f"{metric} {other}": estimate.test.p_value
        for (metric, other), estimate in found.items()
        if not isinstance(estimate, str) and estimate.test is not None
    }
    adjusted = holm(tested)
    return [
        Difference(metric, arm, other, estimate, adjusted.get(f"{metric} {other}"))
        for (metric, other), estimate in found.items()
    ]


def _seed_metric(
    own: Sequence[RunRecord],
    name: str,
    records: Sequence[RunRecord],
    references: ReferencesConfig,
) -> Estimate | str:
    """A metric that is no mean over examples, mean over seeds; reference runs of the same seed."""
    if any(run.arm in reference_arms(name, references) for run in own):
        return OWN_REFERENCE
    values: dict[int, list[float]] = {}
    for run in complete(own):
        kind = "isolated" if name == "fwt_isolated" else None
        reference = reference_of(records, references, run.seed, kind)
        metric = final_metrics(run.matrix, noise_floor=run.noise_floor, reference=reference)[name]
        if metric.value is None:
            return metric.reason or "undefined"
        values.setdefault(run.seed, []).append(metric.value)
    if not values:
        return NO_RUN
    return over_seeds_alone({seed: fmean(found) for seed, found in values.items()})


def reference_arms(metric: str, references: ReferencesConfig) -> Sequence[str]:
    """The arms that this metric is measured against; of their own they have no value."""
    isolated = tuple(references.isolated.values())
    if metric == "intransigence":
        return isolated if references.joint is None else (references.joint,)
    return isolated if metric == "fwt_isolated" else ()


def reference_of(
    records: Sequence[RunRecord], references: ReferencesConfig, seed: int, kind: str | None
) -> Reference | None:
    """The reference run of a seed: `isolated`, or that of the joint arm if one is named.

    A joint run that is not finished is not replaced by isolated ones: seeds with other references
    have no mean.

    Args:
        records: Finished runs.
        references: Which arms are reference runs.
        seed: Of the runs.
        kind: `isolated`; None prefers the joint arm.
    """
    runs = {run.arm: run for run in records if run.seed == seed}
    if kind is None and references.joint is not None:
        joint = runs.get(references.joint)
        return Reference("joint", _means(final_scores(joint))) if joint else None
    means = {arm: _means(final_scores(run)) for arm, run in runs.items()}
    scores = {
        task: means[arm][task]
        for task, arm in references.isolated.items()
        if task in means.get(arm, {})
    }
    return Reference("isolated", scores) if scores else None


def _means(found: Examples) -> dict[str, float]:
    return {task: fmean(values.values()) for task, values in found.items() if values}


def _kl(own: Sequence[RunRecord]) -> Estimate | str:
    values: dict[int, list[float]] = {}
    for run in complete(own):
        last = run.matrix.num_stages
        found = [run.kl.get((last, task)) for task in dict.fromkeys(run.matrix.stages)]
        known = [kl for kl in found if kl is not None]
        if len(known) < len(found):
            return "not measured"
        values.setdefault(run.seed, []).append(fmean(known))
    if not values:
        return NO_RUN
    return over_seeds_alone({seed: fmean(found) for seed, found in values.items()})
