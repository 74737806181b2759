"""Whether signals of difficulty tell wrong answers from right ones better than what is free.

Functions of numbers, one row a problem. Over several tasks a figure is the mean of the figures
within tasks, each drawn again by itself. How to read it, and the traps: docs/signals.md.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from fastslow.core.types import Metric
from fastslow.measure.scores.signal_draws import (
    DRAWS,
    FORMULAS,
    RIDGE,
    Design,
    ProblemRow,
    SignalDraws,
    Table,
    task_draws,
)
from fastslow.measure.stats.bootstrap import LEAST_DEFINED, Estimate, from_draws
from fastslow.measure.stats.significance import holm

Role: TypeAlias = Literal["primary", "baseline", "secondary", "label", "reference"]


@dataclass(frozen=True, slots=True)
class SignalValidity:
    """The figures of one signal on one task, or over several, and what follows from them."""

    signal: str
    role: Role
    figures: Mapping[str, Estimate]
    """One for each name in `FORMULAS`."""
    opponents: tuple[str, ...]
    """The best free baseline of each task, each name once; `chance` for one that is free itself."""
    p_value: float | None
    """Of the difference, two-sided and Holm-corrected over secondary signals and baselines, from a
    normal distribution with mean and spread of the draws. None for others, and without an
    interval."""
    earned: bool
    """Whether the interval of the difference lies above 0, and `p_value` below 5 %."""
    reason: str
    """The verdict with its figures, in one sentence."""
    follows: str
    """`follows unfamiliarity`, or familiarity, where it does so and `partial` is not above 0; else
    empty."""


@dataclass(frozen=True, slots=True)
class Validity:
    """All signals on one task, or over several."""

    tasks: tuple[str, ...]
    examples: int
    wrong: int | None
    """Of the examples; None where not all were scored."""
    controls: tuple[str, ...]
    """Controls of familiarity that are known, and vary, on some task."""
    notes: tuple[str, ...]
    """Controls that are left out, and why, a clause each."""
    signals: Mapping[str, SignalValidity]
    """By name, in the order of the rows."""


@dataclass(frozen=True, slots=True)
class _Pooled:
    """Figures of one signal over tasks: estimates, and the draws behind the difference."""

    figures: Mapping[str, Estimate]
    differences: Float[np.ndarray, " draws"]
    opponents: tuple[str, ...]
    coverage: str
    """How many of the tasks the difference is a mean of, where not all."""


def judge_signals(
    rows: Sequence[ProblemRow], design: Design
) -> tuple[Validity, Mapping[str, Validity]]:
    """The validity of every signal over all tasks, and on each task by its name.

    There must be a row at least, and no example twice in a task.
    """
    by_task = defaultdict[str, list[ProblemRow]](list)
    for row in rows:
        by_task[row.task].append(row)
    tables = {
        task: Table.from_rows(task, members, design.seed) for task, members in by_task.items()
    }
    draws = {task: task_draws(table, design) for task, table in tables.items()}
    single = {task: _judge([table], [draws[task]], design) for task, table in tables.items()}
    if len(tables) == 1:
        return next(iter(single.values())), single
    return _judge([*tables.values()], [*draws.values()], design), single


def _judge(
    tables: Sequence[Table], draws: Sequence[Mapping[str, SignalDraws]], design: Design
) -> Validity:
    """Pool the tasks, correct, and say what has earned to be acted on."""
    names = dict.fromkeys(name for of_task in draws for name in of_task)
    pooled = {
        name: _pool({t.task: d[name] for t, d in zip(tables, draws, strict=True) if name in d})
        for name in names
    }
    roles = {name: _role(name, design) for name in names}
    p_values = {
        name: _p_value(part.differences)
        for name, part in pooled.items()
        if roles[name] in ("secondary", "baseline") and part.figures["difference"].interval
    }
    corrected = holm(p_values)
    wrongs = [table.wrong.sum() for table in tables if table.wrong is not None]
    return Validity(
        tasks=tuple(table.task for table in tables),
        examples=sum(len(table.clusters) for table in tables),
        wrong=int(sum(wrongs)) if len(wrongs) == len(tables) else None,
        controls=tuple(dict.fromkeys(name for table in tables for name in table.controls)),
        notes=tuple(note for table in tables for note in table.notes),
        signals={
            name: _verdict(name, roles[name], part, corrected.get(name))
            for name, part in pooled.items()
        },
    )


def _role(signal: str, design: Design) -> Role:
    if signal in design.labels:
        return "label"
    if signal == RIDGE:
        return "reference"
    if signal == design.primary:
        return "primary"
    return "baseline" if signal in design.baselines else "secondary"


def _pool(by_task: Mapping[str, SignalDraws]) -> _Pooled:
    """The mean over the tasks that have each figure, draw by draw; see `_steady`."""
    figures, differences = dict[str, Estimate](), np.zeros(0)
    for name, formula in FORMULAS.items():
        values = [draws.values[name] for draws in _steady(by_task, name)]
        if not values:
            reasons = dict.fromkeys(draws.reasons[name] for draws in by_task.values())
            reason = "; ".join(reasons)
            figures[name] = Estimate(Metric(name, None, reason, formula), None, reason)
            continue
        means = np.mean(values, axis=0)
        again = means[1:][np.isfinite(means[1:])]
        metric = Metric(name, float(means[0]), None, formula)
        figures[name] = from_draws(metric, again.tolist(), DRAWS)
        if name == "difference":
            differences = again
    judged = _steady(by_task, "difference")
    coverage = f"over {len(judged)} of {len(by_task)} tasks, "
    return _Pooled(
        figures,
        differences,
        tuple(dict.fromkeys(draws.opponent for draws in judged)),
        coverage if 0 < len(judged) < len(by_task) else "",
    )


def _steady(by_task: Mapping[str, SignalDraws], name: str) -> list[SignalDraws]:
    """The tasks that a figure is the mean over: those on which nearly every draw has it.

    One with a wrong answer or two has no interval, and would leave the mean without one. Where no
    task has it so, all that have it at all.
    """
    candidates = [draws for draws in by_task.values() if name in draws.values]
    shares = [float(np.isfinite(draws.values[name]).mean()) for draws in candidates]
    steady = [d for d, share in zip(candidates, shares, strict=True) if share >= LEAST_DEFINED]
    return steady or candidates


def _p_value(draws: Float[np.ndarray, " draws"]) -> float:
    """Two-sided, of no difference; never below what one draw counts for where all are equal."""
    from scipy.special import ndtr

    mean, spread = float(draws.mean()), float(draws.std(ddof=1))
    if spread == 0:
        return 1.0 if mean == 0 else 1 / (len(draws) + 1)
    return float(2 * ndtr(-abs(mean) / spread))


def _verdict(name: str, role: Role, part: _Pooled, p_value: float | None) -> SignalValidity:
    """What the figures of a signal amount to."""
    difference, follows = part.figures["difference"], _follows(part.figures)
    is_above = difference.interval is not None and difference.interval.low > 0
    earned = is_above and (role == "primary" or (p_value is not None and p_value < 0.05))
    if role == "label":
        why = "it needs the gold answer, so it is what is to be told"
    elif role == "reference":
        why = f"it learned from these answers, {_figures_text(role, part)}"
    elif difference.metric.value is None:
        why = f"unavailable, {difference.metric.reason}"
    else:
        why = _figures_text(role, part)
        if p_value is not None:
            why += f", p {'< 0.001' if p_value < 0.001 else f'{p_value:.3f}'} (Holm)"
    reason = f"{'earned' if earned else 'not earned'}: {why}{'; ' * bool(follows)}{follows}"
    return SignalValidity(
        name, role, part.figures, part.opponents, p_value, earned, reason, follows
    )


def _figures_text(role: Role, part: _Pooled) -> str:
    """AUROC, that of the opponent, and the difference, in words."""
    auroc, opponent, difference = (part.figures[f] for f in ("auroc", "opponent", "difference"))
    if difference.metric.value is None:
        return f"unavailable, {difference.metric.reason}"
    rivals = f"best free baseline {opponent.metric.value:.2f} ({' or '.join(part.opponents)})"
    if role == "baseline":
        rivals = f"chance {opponent.metric.value:.2f} (it is free itself)"
    limits = f"({difference.interval_reason})"
    if difference.interval is not None:
        limits = f"[{difference.interval.low:+.2f}, {difference.interval.high:+.2f}]"
    return (
        f"{part.coverage}AUROC {auroc.metric.value:.2f}, {rivals}, "
        f"difference {difference.metric.value:+.2f} {limits}"
    )


def _follows(figures: Mapping[str, Estimate]) -> str:
    """Whether a signal goes with familiarity, and not with difficulty beyond it."""
    unfamiliarity, partial = figures["unfamiliarity"].interval, figures["partial"].interval
    if unfamiliarity is None or (partial is not None and partial.low > 0):
        return ""
    if unfamiliarity.low > 0:
        return "follows unfamiliarity"
    return "follows familiarity" if unfamiliarity.high < 0 else ""
