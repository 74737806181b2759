"""What a report says in words and tables, before it is dressed for a terminal or for Markdown.

Owns wording, rounding and order; every string that comes from outside the package is still raw
here and is escaped by the two writers.
"""

from collections.abc import Sequence

from fastslow.core.types import Metric
from fastslow.records.events import ShrinkEvent
from fastslow.results.render.layout import Table, Text, brackets, difference, shown
from fastslow.results.report.cells import Cell, Comparison
from fastslow.results.report.data import Report, TaskSummary
from fastslow.results.report.sections.cost import cost_table, reflection_table, stage_table
from fastslow.results.report.sections.drift import drift_tables
from fastslow.results.report.sections.forgetting import measured_tables
from fastslow.results.report.sections.plasticity import probe_tables
from fastslow.results.report.sections.weights import weight_tables

HEADLINE = (
    "average_accuracy",
    "learning_accuracy",
    "bwt_gem",
    "fwt_gem",
    "forgetting_chaudhry",
    "intransigence",
    "retention_gain",
)
"""Metrics shown in the terminal; report.md and report.json have all of them."""


def tables(report: Report, *, headline_only: bool = False) -> list[Table]:
    """All tables of the report in reading order.

    Args:
        report: The report.
        headline_only: Leave out the alternates among the metrics.
    """
    names = HEADLINE if headline_only else tuple(report.metrics)
    made = [
        _matrix(report),
        _deployed(report),
        _per_task(report),
        _metrics([report.metrics[name] for name in names], report, len(report.metrics)),
        *measured_tables(report),
        *drift_tables(report),
        *probe_tables(report.probes),
        *weight_tables(report),
        _shrink(report),
        _notes(report),
        stage_table(report),
        cost_table(report),
        reflection_table(report),
    ]
    return [table for table in made if table.rows]


def _matrix(report: Report) -> Table:
    labels = ["0 base", *(f"{i} {t}" for i, t in enumerate(report.stage_tasks, start=1))]
    return Table(
        "Score matrix",
        ("after stage", *report.tasks),
        tuple(
            (Text(label, "strong" if row == 0 else "plain"), *(_score(cell) for cell in cells))
            for row, (label, cells) in enumerate(zip(labels, report.cells, strict=True))
        ),
        "Rows: when measured; row 0 is the untouched base. Columns: tasks. * right after its own "
        "stage; ( ) not trained on yet, or held out, scored with the seed text. "
        "Brackets: 95 % interval.",
    )


def _score(cell: Cell) -> Text:
    if cell.score is None:
        return Text("not measured", "dim")
    interval = brackets(cell.interval)
    if cell.phase == "learned":
        return Text(f"{cell.score:.2f}*{interval}", "strong")
    if cell.phase == "seen":
        return Text(f"{cell.score:.2f}{interval}")
    return Text(f"({cell.score:.2f}){interval}", "dim")


def _deployed(report: Report) -> Table:
    event = report.deployed
    rows = () if event is None else zip(report.tasks, report.cells[event.row], strict=True)
    return Table(
        "Deployed",
        ("task", "score", "weights", "text"),
        tuple(
            (
                Text(task),
                _score(cell),
                Text(event.weights.get(task, "-"), is_code=True),
                Text(event.texts.get(task, "-"), is_code=True),
            )
            for task, cell in rows
            if event is not None
        ),
        ""
        if event is None
        else f"`fastslow rollback` put the policy after stage {event.row} in use at {event.at}, in "
        f"place of the one after stage {event.before}. The other tables are about the run as it "
        "was trained.",
    )


def _per_task(report: Report) -> Table:
    return Table(
        "Tasks",
        (
            "task",
            "n",
            "base",
            "learned",
            "final",
            "learned - base",
            "final - learned",
            "detectable drop",
        ),
        tuple(_task_row(summary) for summary in report.summaries),
        "Paired over the same examples, 95 % intervals, uncorrected for the number of tasks. "
        "! beyond chance at 5 % (exact McNemar for 0/1 scores, else the interval). "
        "Detectable drop: the smallest one that would be found with 80 % power.",
    )


def _task_row(summary: TaskSummary) -> tuple[Text, ...]:
    change = summary.change.difference
    return (
        Text(summary.task),
        Text(str(summary.final.n or summary.base.n)),
        Text(shown(summary.base.score)),
        Text(shown(summary.learned.score if summary.learned else None)),
        Text(shown(summary.final.score)),
        _compared(summary.gain),
        _compared(summary.change),
        Text("-" if change is None else f"{change.smallest_detectable:.2f}"),
    )


def _compared(comparison: Comparison) -> Text:
    change = comparison.difference
    if change is None:
        return Text(comparison.reason or "-", "dim")
    mark = "!" if change.is_drop or change.is_rise else ""
    return Text(difference(change) + mark, "strong" if change.is_drop else "plain")


def _metrics(metrics: Sequence[Metric], report: Report, total: int) -> Table:
    rows = []
    for metric in metrics:
        if metric.value is None:
            value, text = Text("undefined", "dim"), Text(metric.reason or "", "dim")
        else:
            interval = brackets(report.intervals.get(metric.name))
            value, text = Text(f"{metric.value:.3f}{interval}"), Text(metric.formula, is_code=True)
        rows.append((Text(metric.name, is_code=True), value, text))
    left = total - len(metrics)
    notes = [f"{report.bwt_warning}."] if report.bwt_warning else []
    if left:
        notes.append(f"{left} alternates are in report.md and report.json.")
    return Table(
        "Metrics",
        ("metric", "value", "formula, or why there is no value"),
        tuple(rows),
        " ".join(notes),
    )


def _shrink(report: Report) -> Table:
    return Table(
        "Shrink",
        (
            "stage",
            "factor",
            "start",
            "left",
            "scaled",
            "share of the gain kept",
            "kl before",
            "kl after",
            "earlier tasks",
        ),
        tuple(_shrink_row(event) for event in report.shrinks),
        "The adapter after each stage, scaled to the smallest factor that keeps the wanted share "
        "of the stage's gain. Validation scores as the stage found the adapter, as it left it, and "
        "scaled; KL(tuned || base) in nats per token on validation inputs; what the scaling "
        "changed on validation of earlier tasks.",
    )


def _shrink_row(event: ShrinkEvent) -> tuple[Text, ...]:
    gain = event.validation_before - event.validation_start
    kept = (event.validation_after - event.validation_start) / gain if gain > 0 else None
    earlier = [
        f"{task} {event.earlier_after[task] - score:+.2f}"
        for task, score in event.earlier_before.items()
    ]
    return (
        Text(f"{event.stage + 1} {event.task}"),
        Text(f"{event.factor:g}" + (f": {event.reason}" if event.reason else "")),
        Text(shown(event.validation_start)),
        Text(shown(event.validation_before)),
        Text(shown(event.validation_after)),
        Text(shown(kept)),
        Text("-" if event.kl_before is None else f"{event.kl_before:.4f}"),
        Text("-" if event.kl_after is None else f"{event.kl_after:.4f}"),
        Text(", ".join(earlier) or "-"),
    )


def _notes(report: Report) -> Table:
    return Table(
        "Notes",
        ("stage", "cycle", "channel", "what happened"),
        tuple(
            (
                Text(f"{note.stage + 1} {report.stage_tasks[note.stage]}"),
                Text(str(note.cycle + 1)),
                Text(note.channel),
                Text(note.text),
            )
            for note in report.notes
        ),
    )
