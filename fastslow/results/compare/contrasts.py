"""Differences between two arms, task by task, example by example.

Pure functions on what `build.py` read. A pair is one run of the baseline and one of the other
arm; over several pairs each example's difference is averaged first, the seeds taken as fixed.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TypeAlias

from fastslow.core.types import Json
from fastslow.measure.stats.intervals import (
    Z_95,
    Z_DETECT,
    PairedDifference,
    difference_of,
    paired_difference,
)
from fastslow.measure.stats.significance import MAX_EXACT_SEEDS, holm, sign_flip
from fastslow.records.events import NEUTRAL
from fastslow.results.compare.data import ArmRun, Contrast, Quantity
from fastslow.results.report.cells import CellTable, ExampleScores
from fastslow.results.report.data import Report
from fastslow.results.report.sections.cost import Cost
from fastslow.results.report.sections.drift import Drift
from fastslow.results.report.sections.metrics import Metrics
from fastslow.results.report.sections.tasks import Tasks


@dataclass(frozen=True, slots=True)
class Side:
    """One run with what its records say."""

    run: ArmRun
    table: CellTable
    config: Mapping[str, Json]
    """Its config.json, flattened to dotted keys."""

    @property
    def last(self) -> int:
        """The last row of its matrix."""
        return len(self.table.stages)


Pair: TypeAlias = tuple[Side, Side]
"""A run of the baseline and one of the other arm."""


def task_contrasts(
    quantity: Quantity, tasks: Sequence[str], pairs: Sequence[Pair], why_not: str | None
) -> tuple[Contrast, ...]:
    """One per task, with Holm's correction over them.

    Args:
        quantity: What is compared.
        tasks: Every task of either arm.
        pairs: What is compared with what.
        why_not: Why nothing can be paired; None if it can.
    """
    made = [_task(quantity, task, pairs, why_not) for task in tasks]
    adjusted = holm({c.name: c.p_value for c in made if c.p_value is not None})
    return tuple(replace(c, p_holm=adjusted.get(c.name)) for c in made)


def _task(quantity: Quantity, task: str, pairs: Sequence[Pair], why_not: str | None) -> Contrast:
    scored = [(_scores(a, task, quantity), _scores(b, task, quantity)) for a, b in pairs]
    before, after = (
        mean_of([fmean(s.values()) for pair in scored if (s := pair[i])]) for i in (0, 1)
    )
    reasons = [why_not] if why_not else [_why_not_paired(pair, task, quantity) for pair in pairs]
    known = [reason for reason in reasons if reason is not None]
    if not known and len({frozenset(a) for a, _ in scored}) > 1:
        known = ["the seeds were scored on different examples"]
    if known:
        return without_examples(task, before, after, known[0])
    examples = sorted(scored[0][0])
    differences = [fmean(b[example] - a[example] for a, b in scored) for example in examples]
    binary = quantity != "change" and len(scored) == 1
    if binary:
        found = paired_difference(*([side[example] for example in examples] for side in scored[0]))
    else:
        found = difference_of(differences, limit=1.0 if quantity != "change" else 2.0)
    seeds = tuple(fmean(b[e] - a[e] for e in examples) for a, b in scored) if scored[1:] else ()
    return _estimated(task, before, after, found, seeds)


def _estimated(
    name: str,
    before: float | None,
    after: float | None,
    found: PairedDifference,
    seeds: tuple[float, ...],
) -> Contrast:
    p_value, test = found.p_value, "exact McNemar"
    if p_value is None:
        p_value, test = normal_p(found.mean, found.se), "normal"
    flip = sign_flip(seeds) if 0 < len(seeds) <= MAX_EXACT_SEEDS else None
    return Contrast(
        name=name,
        baseline=before,
        value=after,
        difference=found.mean,
        low=found.low,
        high=found.high,
        n=found.n,
        p_value=p_value,
        p_holm=None,
        test=None if p_value is None else test,
        smallest_detectable=found.smallest_detectable,
        reason=found.reason,
        seed_differences=seeds,
        sign_flip_p=flip.p_value if flip else None,
        sign_flip_note=flip.why_not_significant if flip else None,
    )


def without_examples(
    name: str,
    before: float | None,
    after: float | None,
    reason: str | None,
    *,
    difference: float | None = None,
    half: float | None = None,
) -> Contrast:
    """A contrast without examples behind it.

    Args:
        name: Of what is compared.
        before: The baseline's value.
        after: The other's.
        reason: Why there is no difference, or no interval; None if there is one or none is due.
        difference: After - before, where it may be taken.
        half: Half the width of its 95 % interval; None for none.
    """
    known = difference is not None and half is not None
    return Contrast(
        name=name,
        baseline=before,
        value=after,
        difference=difference,
        low=difference - half if known and difference is not None and half is not None else None,
        high=difference + half if known and difference is not None and half is not None else None,
        n=0,
        p_value=None,
        p_holm=None,
        test=None,
        smallest_detectable=None,
        reason=reason,
    )


def normal_p(mean: float, se: float | None) -> float | None:
    """Two-sided p-value of mean / standard error under a normal distribution.

    Args:
        mean: Of the differences.
        se: Its standard error; None gives no value.
    """
    return math.erfc(abs(mean) / se / math.sqrt(2)) if se else None


def mean_of(values: Sequence[float]) -> float | None:
    """The mean, or None of nothing."""
    return fmean(values) if values else None


def _scores(side: Side, task: str, quantity: Quantity) -> ExampleScores:
    """Score of each example, or final minus learned; nothing where there is none."""
    learned = side.table.learned_row(task)
    final = side.table.deployed(side.last, task)
    if quantity == "final":
        return final
    if learned is None:
        return {}
    first = side.table.deployed(learned, task)
    if quantity == "learned":
        return first
    if learned == side.last or first.keys() != final.keys():
        return {}
    return {example: score - first[example] for example, score in final.items()}


def _why_not_paired(pair: Pair, task: str, quantity: Quantity) -> str | None:
    """Why a task's examples cannot be held against each other; None if they can."""
    for side in pair:
        reason = _why_missing(side, task, quantity)
        if reason is not None:
            return f"{side.run.run}: {reason}"
    versions = [_version(side.run.report, task) for side in pair]
    if versions[0] != versions[1]:
        return f"other versions of the task: {versions[0]}, {versions[1]}"
    configs = [side.config for side in pair]
    differing = [
        key
        for key in sorted({*configs[0], *configs[1]})
        if key.startswith(f"tasks.{task}.") and configs[0].get(key) != configs[1].get(key)
    ]
    if differing:
        key = max(differing, key=len)
        values = ", ".join(json.dumps(config.get(key)) for config in configs)
        return f"asked otherwise: {key} is {values}"
    ids = [_scores(side, task, quantity).keys() for side in pair]
    if ids[0] != ids[1]:
        return f"other examples: {len(ids[0] & ids[1])} shared of {len(ids[0])} and {len(ids[1])}"
    return None


def _why_missing(side: Side, task: str, quantity: Quantity) -> str | None:
    learned = side.table.learned_row(task)
    if task not in side.run.report.tasks:
        return "no such task"
    if quantity != "final" and learned is None:
        return "held out: no stage trains on it"
    if quantity == "change" and learned == side.last:
        return "learned in the last stage: nothing came after"
    return None if _scores(side, task, quantity) else "not measured"


def _version(report: Report, task: str) -> str | None:
    return next((s.version for s in report.section(Tasks).summaries if s.task == task), None)


METRICS: Mapping[str, Quantity | None] = {
    "average_accuracy": "final",
    "learning_accuracy": "learned",
    "bwt_gem": "change",
    "forgetting_chaudhry": None,
    "fwt_gem": None,
}
"""Metrics compared, and the quantity of each task whose mean they are; None for no plain mean."""
DRIFTS = ("kl_fst", "kl_razor", "neutral_ce_delta")


def metric_contrasts(
    pairs: Sequence[Pair], tasks: Mapping[Quantity, tuple[Contrast, ...]], why_not: str | None
) -> tuple[Contrast, ...]:
    """Differences of the headline metrics, with intervals where they are means over tasks."""
    made = []
    for name, quantity in METRICS.items():
        found = [
            [side.run.report.section(Metrics).metrics[name] for side in pair] for pair in pairs
        ]
        before, after = (
            mean_of([v for pair in found if (v := pair[i].value) is not None]) for i in (0, 1)
        )
        missing = [m.reason for pair in found for m in pair if m.value is None]
        reason = why_not or (f"undefined: {missing[0]}" if missing else None)
        if reason is None and len({side.table.stages for pair in pairs for side in pair}) > 1:
            reason = "other stages: their means are over other tasks"
        if reason is not None or before is None or after is None:
            made.append(without_examples(name, before, after, reason))
            continue
        half, why = _half(quantity, pairs, tasks)
        made.append(
            without_examples(name, before, after, why, difference=after - before, half=half)
        )
    return tuple(made)


def _half(
    quantity: Quantity | None, pairs: Sequence[Pair], tasks: Mapping[Quantity, tuple[Contrast, ...]]
) -> tuple[float | None, str | None]:
    """Half the width of the interval of a mean over tasks, or why there is none."""
    if quantity is None:
        return None, "no plain mean of paired differences: no interval"
    stages = pairs[0][0].table.stages
    wanted = stages[:-1] if quantity == "change" else stages
    known = {contrast.name: contrast for contrast in tasks[quantity]}
    if len(set(stages)) < len(stages):
        return None, "a task is visited twice: no interval"
    if any(known[task].difference is None for task in wanted):
        return None, "not every task is paired: no interval"
    # not from the ends of their intervals, which are cut where no score can be
    errors = [
        c.smallest_detectable / Z_DETECT
        for task in wanted
        if (c := known[task]).low is not None and c.smallest_detectable is not None
    ]
    if not errors:
        return None, "no task's differences have a spread: no interval"
    return Z_95 * math.hypot(*errors) / len(wanted), None


def drift_contrasts(
    tasks: Sequence[str], pairs: Sequence[Pair], why_not: str | None
) -> tuple[Contrast, ...]:
    """Divergences from the base after the last stage, by name and inputs.

    They are recorded as means with standard errors, so nothing is paired: the interval is that of
    two independent means.
    """
    made = []
    for name in DRIFTS:
        for task in (*tasks, NEUTRAL):
            found = [[_drift(side, name, task) for side in pair] for pair in pairs]
            values = [[v for pair in found if (v := pair[i][0]) is not None] for i in (0, 1)]
            if not any(values):
                continue
            before, after = mean_of(values[0]), mean_of(values[1])
            label = f"{name}, {task}"
            if why_not or before is None or after is None or len(values[0]) != len(values[1]):
                made.append(
                    without_examples(label, before, after, why_not or "not measured in both")
                )
                continue
            errors = [pair[i][1] for pair in found for i in (0, 1)]
            known = [error for error in errors if error is not None]
            half = Z_95 * math.hypot(*known) / len(pairs) if len(known) == len(errors) else None
            reason = None if half is not None else "no standard error was recorded"
            made.append(
                without_examples(label, before, after, reason, difference=after - before, half=half)
            )
    return tuple(made)


def _drift(side: Side, name: str, task: str) -> tuple[float | None, float | None]:
    """Value and standard error after the last stage; under the deployed text where there is one."""
    events = [
        e
        for e in side.run.report.section(Drift).events
        if e.name == name and e.task == task and e.row == side.last
    ]
    best = sorted(events, key=lambda e: e.text != "with_text")
    return (best[0].value, best[0].se) if best else (None, None)


def cost_contrasts(pairs: Sequence[Pair], why_not: str | None) -> tuple[Contrast, ...]:
    """What both spent, counted: no interval."""
    kinds: Mapping[str, Callable[[Cost], float]] = {
        "rollouts, fast": lambda cost: cost.rollouts["fast"],
        "rollouts, slow": lambda cost: cost.rollouts["slow"],
        "rollouts, fast + slow": lambda cost: cost.rollouts["fast"] + cost.rollouts["slow"],
        "rollouts, evaluation": lambda cost: cost.rollouts["evaluation"],
        "seconds, fast": lambda cost: cost.seconds_by["fast"],
        "seconds, slow": lambda cost: cost.seconds_by["slow"],
        "seconds, evaluation": lambda cost: cost.seconds_by["evaluation"],
        "seconds, whole run": lambda cost: cost.seconds,
    }
    made = []
    for name, spent in kinds.items():
        before, after = (
            mean_of([float(spent(pair[i].run.report.section(Cost))) for pair in pairs])
            for i in (0, 1)
        )
        difference = None if before is None or after is None else after - before
        made.append(without_examples(name, before, after, why_not, difference=difference))
    return tuple(made)
