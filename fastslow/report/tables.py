"""What a report says in words and tables, before it is dressed for a terminal or for Markdown.

Owns wording, rounding and order; every string that comes from outside the package is still raw
here and is escaped by the two writers.
"""

from collections.abc import Sequence

from fastslow.records import ShrinkEvent
from fastslow.report.cells import Cell, Comparison
from fastslow.report.data import Report, TaskSummary
from fastslow.report.drifts import drift_tables
from fastslow.report.layout import Table, Text, brackets, difference, shown
from fastslow.report.measured import measured_tables
from fastslow.report.plasticity import TaskProbe, probe_tables
from fastslow.report.weights import weight_tables
from fastslow.types import Metric

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


def verdict(report: Report) -> str:
    """What was learned and what was forgotten, with uncertainty, in a few sentences.

    Never says that nothing was forgotten: it says how large a drop would have been missed.
    """
    parts = []
    missing = len(report.cells) - report.rows_measured
    if report.state != "finished" or missing:
        parts.append(
            f"The run is {report.state}: {report.rows_measured} of {len(report.cells)} rows of "
            "the matrix are measured."
        )
    trained = [s for s in report.summaries if s.learned_row is not None]
    learned = [s.task for s in trained if s.gain.difference and s.gain.difference.is_rise]
    level = report.metrics["learning_accuracy"].value
    parts.append(
        f"Learned {len(learned)} of {len(trained)} tasks beyond chance"
        + (f" ({', '.join(learned)})" if learned else "")
        + ("." if level is None else f"; learning accuracy {level:.2f} (learning_accuracy).")
    )
    if not learned:
        parts.append("With nothing learned, forgetting says nothing.")
    parts += _forgotten(report)
    if report.deployed is not None and report.deployed.row < len(report.stage_tasks):
        parts.append(
            f"Rolled back: in use is the policy after stage {report.deployed.row} of "
            f"{len(report.stage_tasks)}."
        )
    parts += map(_probed, report.probes)
    return " ".join(parts)


def _probed(probe: TaskProbe) -> str:
    """What one probe says: whether its end lies beyond chance from the base's."""
    name = "probe_end_difference"
    value, interval = probe.metrics[name].value, probe.estimates[name].interval
    where = f"on the probe {probe.task}, from the weights of row {probe.row}"
    if value is None or interval is None:
        return f"Plasticity is not measured {where}."
    said = "Lost plasticity" if interval.high < 0 else "No loss of plasticity beyond chance"
    return f"{said} {where}: {value:+.2f}{brackets(interval)} against the base ({name})."


def _forgotten(report: Report) -> list[str]:
    forgetting, transfer = report.metrics["forgetting_chaudhry"], report.metrics["bwt_gem"]
    if forgetting.value is None or transfer.value is None:
        return [f"Forgetting is not measured: {forgetting.reason or transfer.reason}."]
    amount = f"{abs(forgetting.value):.2f} on average (forgetting_chaudhry)"
    is_loss = forgetting.value >= 0
    said = [
        (f"Forgot {amount}" if is_loss else f"Ended above the earlier best by {amount}")
        + f"; backward transfer {transfer.value:+.2f}"
        + brackets(report.intervals.get("bwt_gem"))
        + " (bwt_gem)."
    ]
    changes = [(s.task, s.change.difference) for s in report.summaries]
    measured = [(task, change) for task, change in changes if change is not None]
    dropped = [f"{task} {difference(change)}" for task, change in measured if change.is_drop]
    if dropped:
        said.append(f"Dropped beyond chance: {'; '.join(dropped)}.")
    unclear = [(task, change) for task, change in measured if not change.is_drop]
    if unclear:
        limit = max(change.smallest_detectable for _, change in unclear)
        said.append(
            f"No drop beyond chance on {', '.join(task for task, _ in unclear)}, "
            f"but one below {limit:.2f} could have been missed."
        )
    return said


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
        _stages(report),
        _costs(report),
        _reflection(report),
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


def _stages(report: Report) -> Table:
    rows = []
    for index, stage in enumerate(report.stages, start=1):
        values = [
            stage.metrics[name].value
            for name in ("average_accuracy", "bwt_gem", "forgetting_chaudhry")
        ]
        rows.append(
            (
                Text(f"{index} {stage.task}"),
                Text(str(stage.cycles)),
                Text(str(stage.rollouts["fast"])),
                Text(str(stage.rollouts["slow"])),
                Text(f"{sum(stage.seconds.values()) / 60:.1f}"),
                *(Text(shown(value)) for value in values),
            )
        )
    return Table(
        "Stages",
        (
            "stage",
            "cycles",
            "fast rollouts",
            "slow rollouts",
            "minutes",
            "average accuracy",
            "bwt_gem",
            "forgetting chaudhry",
        ),
        tuple(rows),
        "Metrics as they stood after the stage; - is undefined.",
    )


def _costs(report: Report) -> Table:
    channels = ("fast", "slow")
    trained = sum(report.rollouts[name] for name in channels)
    seconds = sum(report.seconds_by[name] for name in channels)
    reused = sum(cost.reused for cost in report.evaluations.values())
    rows = [(name, report.rollouts[name], 0, report.seconds_by[name]) for name in channels]
    rows.append(("fast + slow", trained, 0, seconds))
    evaluation = (report.rollouts["evaluation"], reused, report.seconds_by["evaluation"])
    rows.append(("evaluation", *evaluation))
    parts = report.evaluations.items() if len(report.evaluations) > 1 else ()
    rows += [(f"evaluation: {n}", c.rollouts, c.reused, c.seconds) for n, c in parts]
    if report.saving_seconds is not None:
        rows.append(("resume points", 0, 0, report.saving_seconds))
    whole = report.seconds
    return Table(
        "Cost",
        ("spent on", "rollouts", "reused", "seconds", "share of the run"),
        tuple(
            (
                Text(name),
                Text(str(count)),
                Text(str(again) if again else "-"),
                Text(f"{time:.1f}"),
                Text(f"{time / whole:.2f}" if whole else "-"),
            )
            for name, count, again, time in rows
        ),
        f"The whole run took {whole / 60:.1f} minutes. Reused: scores of weights and texts that "
        "had been scored before; nothing was drawn for them.",
    )


def _reflection(report: Report) -> Table:
    account = report.reflection
    whole: list[int | None] = []
    if account:
        whole = [account.calls, account.failures, account.prompt_tokens, account.completion_tokens]
    return Table(
        "Reflection LM",
        ("requests", "failed attempts", "prompt tokens", "answer tokens", "US dollars"),
        ()
        if account is None
        else (
            (
                *(Text("-" if count is None else str(count)) for count in whole),
                Text("-" if account.cost_usd is None else f"{account.cost_usd:.4f}"),
            ),
        ),
        "What the reflection LM was asked by the fast channel; none of it is a rollout of a task. "
        "Dollars by list prices; - is not known.",
    )
