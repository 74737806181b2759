"""Tables of what was measured beside the matrix: forgetting by task, channel split, curves."""

from fastslow.core.types import Metric
from fastslow.measure.scores.channel_split import SPLITS
from fastslow.results.render.layout import Table, Text, difference
from fastslow.results.report.data import Report, TaskSummary
from fastslow.results.report.sections.channel_split import TaskSplit
from fastslow.results.report.sections.curves import StageCurve

BY_TASK = ("forgetting_chaudhry", "forgetting_relative", "min_acc", "retention_gain")
"""Terms of each task shown; report.json has all."""


def measured_tables(report: Report) -> list[Table]:
    """In reading order; a table without rows is left out by the caller."""
    return [_forgetting(report), _split(report), _curves(report)]


def value_or_reason(metric: Metric, digits: int = 2) -> Text:
    """A value, or dimmed why there is none."""
    if metric.value is None:
        return Text(metric.reason or "undefined", "dim")
    return Text(f"{metric.value:.{digits}f}")


def _forgetting(report: Report) -> Table:
    trained = [summary for summary in report.summaries if summary.terms]
    return Table(
        "Forgetting by task",
        ("task", *BY_TASK, "detectable drop", "noise floor"),
        tuple(_forgetting_row(summary) for summary in trained),
        "Each task's part of the mean of that name. Detectable drop: the smallest one that would "
        "be found with 80 % power. Noise floor: max - min over repeated evaluations of the base.",
    )


def _forgetting_row(summary: TaskSummary) -> tuple[Text, ...]:
    change = summary.change.difference
    return (
        Text(summary.task),
        *(value_or_reason(summary.terms[name]) for name in BY_TASK),
        Text("-" if change is None else f"{change.smallest_detectable:.2f}"),
        value_or_reason(summary.noise_floor),
    )


def _split(report: Report) -> Table:
    tasks = [split.task for split in report.splits]
    rows = []
    for name, split in SPLITS.items() if tasks else ():
        figures = [_split_cell(found, name) for found in report.splits]
        rows.append((Text(name, is_code=True), *figures, Text(split.formula, is_code=True)))
    return Table(
        "Channel split",
        ("figure", *tasks, "formula"),
        tuple(rows),
        "a(w,p): score with the weights after stage w under text p; p_j the text the task was "
        "learned with, p_T the deployed one, p* one evolved again. Gains and losses of weights and "
        "text, in score units, 95 % intervals over examples; of losses, positive = lost.",
    )


def _split_cell(split: TaskSplit, name: str) -> Text:
    figure, found = split.figures[name], split.differences.get(name)
    return Text(difference(found)) if found else value_or_reason(figure)


def _curves(report: Report) -> Table:
    return Table(
        "Learning curves",
        ("stage", "points", "n", "score 0.5 reached at", "asymptote of a sigmoid"),
        tuple(_curve_row(curve) for curve in report.curves),
        "Points: rollouts (or optimizer steps) drawn for training in the stage until then, and the "
        "mean test score, within a stage under the best text so far.",
    )


def _curve_row(curve: StageCurve) -> tuple[Text, ...]:
    stage = Text(f"{curve.stage + 1} {curve.task}")
    if curve.curve is None or curve.to_threshold is None:
        return (stage, Text(curve.reason or "", "dim"), Text("-"), Text("-"), Text("-"))
    points = zip(curve.curve.counts, curve.curve.means(), strict=True)
    asymptote = curve.sigmoid["sigmoid_asymptote"]
    interval = asymptote.interval
    shown = value_or_reason(asymptote.metric)
    if interval is not None:
        shown = Text(f"{shown.text} [{interval.low:.2f}, {interval.high:.2f}]")
    return (
        stage,
        Text(f"{', '.join(f'{at}: {mean:.2f}' for at, mean in points)} ({curve.curve.unit})"),
        Text(str(curve.curve.num_examples)),
        value_or_reason(curve.to_threshold, 0),
        shown,
    )
