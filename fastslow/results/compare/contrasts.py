"""Differences between two arms: task by task, in the metrics, in drift and in cost.

Pure functions on the runs that `build.py` read. A pair is one run of the baseline and one of the
other arm. Intervals of means are those of an ablation: over two and more pairs, over seeds and
examples; one pair has no seeds to estimate from, so its interval is over examples only.
"""

import json
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TypeAlias, TypeVar

from fastslow.measure.scores.per_example import PER_EXAMPLE
from fastslow.measure.stats.intervals import (
    Z_95,
    PairedDifference,
    cluster_labels,
    difference_of,
    paired_difference,
    wilson,
)
from fastslow.measure.stats.over_seeds import (
    SeedEstimate,
    difference,
    over_seeds_alone,
    over_seeds_and_examples,
)
from fastslow.measure.stats.power import power
from fastslow.measure.stats.significance import holm
from fastslow.records.cells import ExampleScores
from fastslow.records.events import NEUTRAL, DriftEvent
from fastslow.results.compare.data import GOAL, ArmRun, Contrast, Quantity
from fastslow.results.report.sections.cost import Cost
from fastslow.results.report.sections.drift import Drift
from fastslow.results.report.sections.metrics import Metrics
from fastslow.results.report.sections.tasks import Tasks

T = TypeVar("T")
Pair: TypeAlias = tuple[ArmRun, ArmRun]
"""A run of the baseline and one of the other arm."""


def task_contrasts(
    quantity: Quantity, tasks: Sequence[str], pairs: Sequence[Pair], why_not: str | None
) -> tuple[Contrast, ...]:
    """One per task, with Holm's correction over them; `why_not` says why nothing is paired."""
    contrasts = [_task(quantity, task, pairs, why_not) for task in tasks]
    adjusted = holm({c.name: c.p_value for c in contrasts if c.p_value is not None})
    return tuple(replace(c, p_holm=adjusted.get(c.name)) for c in contrasts)


def _task(quantity: Quantity, task: str, pairs: Sequence[Pair], why_not: str | None) -> Contrast:
    scored = [(_scores(a, task, quantity), _scores(b, task, quantity)) for a, b in pairs]
    before, after = (_mean(fmean(s.values()) for s in side if s) for side in _sides(scored))
    plain = Contrast(task, before, after)
    reasons = [why_not, *(_why_not_paired(pair, task, quantity) for pair in pairs)]
    if len({frozenset(before) for before, _ in scored}) > 1:
        reasons.append("the seeds were scored on different examples")
    reason = next((reason for reason in reasons if reason is not None), None)
    if reason is not None:
        return replace(plain, reason=reason)
    clusters = pairs[0][0].report.table.clusters
    n, labels = len(scored[0][0]), cluster_labels(scored[0][0], clusters.get(task, {}))
    if len(pairs) > 1:
        by_seed = {
            a.seed: difference({task: second}, {task: first})
            for (a, _), (first, second) in zip(pairs, scored, strict=True)
        }
        contrast = _over_seeds(plain, over_seeds_and_examples(by_seed, clusters), GOAL, n)
        # without any spread, the most that Wilson's interval allows for 0 changes in n
        detectable = contrast.smallest_detectable or wilson(0, len(set(labels))).high
        return replace(contrast, smallest_detectable=detectable)
    [(first, second)] = scored
    if quantity == "change":
        steps = [second[example] - score for example, score in first.items()]
        return _over_examples(plain, difference_of(steps, labels, limit=2.0), labels)
    after_scores = [second[example] for example in first]
    return _over_examples(
        plain, paired_difference(list(first.values()), after_scores, labels), labels
    )


def _over_examples(
    plain: Contrast, paired: PairedDifference, labels: Sequence[Hashable]
) -> Contrast:
    """A contrast of one seed, whose interval is over examples only."""
    sources = {"examples": ((paired.se or 0.0) ** 2, float(len(set(labels)) - 1))}
    p_value, test = paired.p_value, "exact McNemar"
    if p_value is None and paired.se:
        p_value, test = math.erfc(abs(paired.mean) / paired.se / math.sqrt(2)), "normal"
    return replace(
        plain,
        difference=paired.mean,
        low=paired.low,
        high=paired.high,
        covers=None if paired.low is None else "examples",
        n=paired.n,
        p_value=p_value,
        test=None if p_value is None else test,
        smallest_detectable=paired.smallest_detectable,
        power=power(sources, GOAL),
        reason=paired.reason,
    )


def _over_seeds(
    plain: Contrast, estimate: SeedEstimate, goal: float | None = None, n: int = 0
) -> Contrast:
    """A contrast whose interval is an estimate's; of several seeds, with the test over them.

    `goal` is the difference to state the power for, if any.
    """
    has_interval, is_several = estimate.low is not None, len(estimate.per_seed) > 1
    test = estimate.test if is_several else None
    return replace(
        plain,
        difference=estimate.mean,
        low=estimate.low,
        high=estimate.high,
        covers=estimate.covers if has_interval else None,
        n=n,
        p_value=estimate.p_value,
        test="Student's t" if has_interval else None,
        smallest_detectable=estimate.detectable,
        power=None if goal is None else power(estimate.sources, goal),
        reason=None if has_interval else estimate.covers,
        seed_differences=tuple(estimate.per_seed.values()) if is_several else (),
        sign_flip_p=test.p_value if test else None,
        sign_flip_note=test.why_not_significant if test else None,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that are there; None without any."""
    numbers = [value for value in values if value is not None]
    return fmean(numbers) if numbers else None


def _sides(pairs: Sequence[Sequence[T]]) -> tuple[list[T], list[T]]:
    """The first and the second of every pair."""
    return [first for first, _ in pairs], [second for _, second in pairs]


def _scores(run: ArmRun, task: str, quantity: Quantity) -> ExampleScores:
    """Score of each example, or final minus learned; nothing where there is none."""
    learned = run.report.table.learned_row(task)
    final = run.report.table.deployed(run.last, task)
    if quantity == "final":
        return final
    if learned is None:
        return {}
    first = run.report.table.deployed(learned, task)
    if quantity == "learned":
        return first
    if learned == run.last or first.keys() != final.keys():
        return {}
    return {example: score - first[example] for example, score in final.items()}


def _why_not_paired(pair: Pair, task: str, quantity: Quantity) -> str | None:
    """Why a task's examples cannot be held against each other; None if they can."""
    for run in pair:
        if reason := _why_missing(run, task, quantity):
            return f"{run.run}: {reason}"
    summaries = [summary for run in pair for summary in run.report.section(Tasks).summaries]
    versions = [summary.version for summary in summaries if summary.task == task]
    if versions[0] != versions[1]:
        return f"other versions of the task: {versions[0]}, {versions[1]}"
    configs = [run.config for run in pair]
    differing = [
        key
        for key in sorted({*configs[0], *configs[1]})
        if key.startswith(f"tasks.{task}.") and configs[0].get(key) != configs[1].get(key)
    ]
    if differing:
        key = max(differing, key=len)
        values = ", ".join(json.dumps(config.get(key)) for config in configs)
        return f"asked otherwise: {key} is {values}"
    ids = [_scores(run, task, quantity).keys() for run in pair]
    if ids[0] != ids[1]:
        return f"other examples: {len(ids[0] & ids[1])} shared of {len(ids[0])} and {len(ids[1])}"
    return None


def _why_missing(run: ArmRun, task: str, quantity: Quantity) -> str | None:
    learned = run.report.table.learned_row(task)
    if task not in run.report.card.tasks:
        return "no such task"
    if quantity != "final" and learned is None:
        return "held out: no stage trains on it"
    if quantity == "change" and learned == run.last:
        return "learned in the last stage: nothing came after"
    return None if _scores(run, task, quantity) else "not measured"


METRICS: Mapping[str, Quantity | None] = {
    "average_accuracy": "final",
    "learning_accuracy": "learned",
    "bwt_gem": "change",
    "forgetting_chaudhry": None,
    "fwt_gem": None,
}
"""Metrics compared, and the quantity of each task whose mean they are; None for no plain mean."""
DRIFTS = ("kl_fst", "kl_razor", "neutral_ce_delta")


def metric_contrast(
    name: str,
    tasks: Mapping[Quantity, tuple[Contrast, ...]],
    pairs: Sequence[Pair],
    why_not: str | None,
) -> Contrast:
    """The difference of one of `METRICS`, with an interval where it is a mean over tasks."""
    values = [[run.report.section(Metrics).metrics[name] for run in pair] for pair in pairs]
    before, after = (_mean(metric.value for metric in side) for side in _sides(values))
    plain = Contrast(name, before, after)
    missing = [metric.reason for pair in values for metric in pair if metric.value is None]
    reason = why_not or (f"undefined: {missing[0]}" if missing else None)
    if reason is None and len({run.stages for pair in pairs for run in pair}) > 1:
        reason = "other stages: their means are over other tasks"
    if reason is not None or before is None or after is None:
        return replace(plain, reason=reason)
    plain = replace(plain, difference=after - before)
    quantity = METRICS[name]
    if quantity is None:
        return replace(plain, reason="no plain mean of paired differences: no interval")
    unpaired = {contrast.name for contrast in tasks[quantity] if contrast.difference is None}
    stages = pairs[0][0].stages
    if unpaired & {*(stages[:-1] if quantity == "change" else stages)}:
        return replace(plain, reason="not every task is paired: no interval")
    values_of = PER_EXAMPLE[name]
    by_seed = {a.seed: difference(values_of(b), values_of(a)) for a, b in pairs}
    clusters = pairs[0][0].report.table.clusters
    return _over_seeds(plain, over_seeds_and_examples(by_seed, clusters), GOAL)


def drift_contrasts(
    tasks: Sequence[str], pairs: Sequence[Pair], why_not: str | None
) -> tuple[Contrast, ...]:
    """Divergences from the base after the last stage, by name and inputs.

    They are recorded as means with standard errors, so no examples are paired: the interval of one
    seed is that of two independent means, that of several is over the differences of the seeds.
    """
    contrasts = []
    for name in DRIFTS:
        for task in (*tasks, NEUTRAL):
            measured = [[_drift(run, name, task) for run in pair] for pair in pairs]
            before, after = (_mean(e.value for e in side if e) for side in _sides(measured))
            events = [e for pair in measured for e in pair if e and e.value is not None]
            steps = {
                a.seed: second.value - first.value
                for (a, _), (first, second) in zip(pairs, measured, strict=True)
                if first and second and first.value is not None and second.value is not None
            }
            plain = Contrast(f"{name}, {task}", before, after)
            if not events:
                continue
            if why_not or 2 * len(steps) < len(events):
                contrasts.append(replace(plain, reason=why_not or "not measured in both"))
            elif len(steps) > 1:
                contrasts.append(_over_seeds(plain, over_seeds_alone(steps)))
            else:
                [step] = steps.values()
                contrasts.append(_independent(plain, step, [event.se for event in events]))
    return tuple(contrasts)


def _independent(plain: Contrast, step: float, errors: Sequence[float | None]) -> Contrast:
    """A difference of two independent means with their standard errors."""
    measured = [error for error in errors if error is not None]
    if len(measured) < len(errors):
        return replace(plain, difference=step, reason="no standard error was recorded")
    half = Z_95 * math.hypot(*measured)
    low, high = step - half, step + half
    return replace(plain, difference=step, low=low, high=high, covers="examples")


def _drift(run: ArmRun, name: str, task: str) -> DriftEvent | None:
    """A figure after the last stage; under the deployed prompt if there is one."""
    events = run.report.section(Drift).events
    matches = [e for e in events if (e.name, e.task, e.row) == (name, task, run.last)]
    return min(matches, key=lambda e: e.text != "with_text", default=None)


COSTS: Mapping[str, Callable[[Cost], float]] = {
    "rollouts, fast": lambda cost: cost.rollouts["fast"],
    "rollouts, slow": lambda cost: cost.rollouts["slow"],
    "rollouts, fast + slow": lambda cost: cost.rollouts["fast"] + cost.rollouts["slow"],
    "rollouts, evaluation": lambda cost: cost.rollouts["evaluation"],
    "seconds, fast": lambda cost: cost.seconds_by["fast"],
    "seconds, slow": lambda cost: cost.seconds_by["slow"],
    "seconds, evaluation": lambda cost: cost.seconds_by["evaluation"],
    "seconds, whole run": lambda cost: cost.seconds,
}


def cost_contrasts(pairs: Sequence[Pair], why_not: str | None) -> tuple[Contrast, ...]:
    """Rollouts and seconds of both, counted: no interval."""
    contrasts = []
    for name, amount in COSTS.items():
        costs = [[float(amount(run.report.section(Cost))) for run in pair] for pair in pairs]
        before, after = map(_mean, _sides(costs))
        step = None if before is None or after is None else after - before
        contrasts.append(Contrast(name, before, after, step, reason=why_not))
    return tuple(contrasts)
