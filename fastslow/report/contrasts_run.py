"""Differences between two arms in what is measured of whole runs: metrics, drift and costs."""

import math
from collections.abc import Callable, Mapping, Sequence

from fastslow.events import NEUTRAL
from fastslow.measure.uncertainty import Z_95, Z_DETECT
from fastslow.report.comparison import Contrast, Quantity
from fastslow.report.contrasts import Pair, Side, mean_of, without_examples
from fastslow.report.data import Report

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
        found = [[side.run.report.metrics[name] for side in pair] for pair in pairs]
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
        e for e in side.run.report.drift if e.name == name and e.task == task and e.row == side.last
    ]
    best = sorted(events, key=lambda e: e.text != "with_text")
    return (best[0].value, best[0].se) if best else (None, None)


def cost_contrasts(pairs: Sequence[Pair], why_not: str | None) -> tuple[Contrast, ...]:
    """What both spent, counted: no interval."""
    kinds: Mapping[str, Callable[[Report], float]] = {
        "rollouts, fast": lambda report: report.rollouts["fast"],
        "rollouts, slow": lambda report: report.rollouts["slow"],
        "rollouts, fast + slow": lambda r: r.rollouts["fast"] + r.rollouts["slow"],
        "rollouts, evaluation": lambda report: report.rollouts["evaluation"],
        "seconds, fast": lambda report: report.seconds_by["fast"],
        "seconds, slow": lambda report: report.seconds_by["slow"],
        "seconds, evaluation": lambda report: report.seconds_by["evaluation"],
        "seconds, whole run": lambda report: report.seconds,
    }
    made = []
    for name, spent in kinds.items():
        before, after = (
            mean_of([float(spent(pair[i].run.report)) for pair in pairs]) for i in (0, 1)
        )
        difference = None if before is None or after is None else after - before
        made.append(without_examples(name, before, after, why_not, difference=difference))
    return tuple(made)
