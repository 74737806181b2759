"""A report in a few sentences, each with its uncertainty."""

from dataclasses import dataclass

from fastslow.core.types import Metric
from fastslow.results.render.layout import brackets, difference
from fastslow.results.report.cells import Comparison
from fastslow.results.report.data import Report, TaskSummary
from fastslow.results.report.sections.plasticity import TaskProbe

NONE = "\N{EN DASH}"
"""Stands where there is no value."""


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """A figure set large."""

    name: str
    value: str
    note: str
    """Its interval, or why there is no value."""


@dataclass(frozen=True, slots=True)
class Amount:
    """A paired difference."""

    value: str
    note: str
    """Its interval, or why there is none."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one task."""

    task: str
    learned: Amount
    """Learned minus base."""
    since: Amount
    """Final minus learned."""
    kept: str
    """Share of the learned gain that is still there."""
    kind: str
    """`forgot`, `kept`, `improved`, `last`, `not-learned` or `unknown`."""
    word: str
    remark: str
    """The smallest drop that would have been found, where none was."""


def headline(report: Report) -> str:
    """The verdict in one sentence, with its uncertainty.

    As `verdict`, it never says that nothing was forgotten.
    """
    trained = [s for s in report.summaries if s.learned_row is not None]
    learned = [s for s in trained if s.gain.difference and s.gain.difference.is_rise]
    start = "" if report.state == "finished" else f"{report.state.capitalize()} run: "
    said = f"{start}{len(learned)} of {len(trained)} tasks learned beyond chance"
    if not learned:
        return f"{said}, so forgetting says nothing."
    transfer = report.metrics["bwt_gem"]
    if transfer.value is None:
        return f"{said}; forgetting is not measured: {transfer.reason}."
    interval = brackets(report.intervals.get("bwt_gem"))
    said += f"; backward transfer {transfer.value:+.2f}{interval}"
    changes = {s.task: s.change.difference for s in report.summaries if s.change.difference}
    dropped = [task for task, change in changes.items() if change.is_drop]
    if not changes:
        return f"{said}; scored on other examples than when learned, so no drop can be told."
    if dropped:
        return f"{said}: {_several(dropped)} dropped beyond chance."
    least = max(change.smallest_detectable for change in changes.values())
    return (
        f"{said}: no task dropped beyond chance, though a drop below {least:.2f} could have been "
        "missed."
    )


def _several(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} tasks ({', '.join(names)})"


def key_figures(report: Report) -> tuple[KeyFigure, ...]:
    """The figures one asks for first."""
    interval = report.intervals.get("bwt_gem")
    trained = report.rollouts["fast"] + report.rollouts["slow"]
    return (
        _key("learning accuracy", report.metrics["learning_accuracy"]),
        _key("final average accuracy", report.metrics["average_accuracy"]),
        _key("backward transfer", report.metrics["bwt_gem"], brackets(interval).strip(), "+.2f"),
        _key("forgetting", report.metrics["forgetting_chaudhry"], "positive = forgot"),
        KeyFigure("rollouts to train", f"{trained:,}", f"{report.seconds / 60:.1f} minutes in all"),
    )


def _key(name: str, metric: Metric, note: str = "", form: str = ".2f") -> KeyFigure:
    if metric.value is None:
        return KeyFigure(name, NONE, metric.reason or "")
    return KeyFigure(name, f"{metric.value:{form}}", note)


def outcomes(report: Report) -> tuple[Outcome, ...]:
    """One per task, in the order of the matrix."""
    return tuple(_outcome(summary, len(report.stages)) for summary in report.summaries)


def _outcome(summary: TaskSummary, last: int) -> Outcome:
    kept = summary.terms.get("retention_gain")
    kind, word = _word(summary, last)
    change, remark = summary.change.difference, ""
    if kind == "kept" and change is not None:
        remark = f"detectable: {change.smallest_detectable:.2f}"
    return Outcome(
        summary.task,
        _amount(summary.gain),
        _amount(summary.change) if kind != "last" else Amount(NONE, ""),
        NONE if kept is None or kept.value is None else f"{kept.value:.2f}",
        kind,
        word,
        remark,
    )


def _word(summary: TaskSummary, last: int) -> tuple[str, str]:
    gain, change = summary.gain.difference, summary.change.difference
    if summary.learned_row is None:
        return "unknown", "held out"
    if gain is None:
        return "unknown", "not measured"
    if not gain.is_rise:
        return "not-learned", "○ not learned"
    if summary.learned_row == last:
        return "last", "▲ learned last"
    if change is None:
        return "unknown", "▲ learned"
    if change.is_drop:
        return "forgot", "▼ forgot"
    if change.is_rise:
        return "improved", "▲ improved"
    return "kept", "● kept"


def _amount(comparison: Comparison) -> Amount:
    change = comparison.difference
    if change is None:
        return Amount(NONE, comparison.reason or "")
    if change.low is None or change.high is None:
        return Amount(f"{change.mean:+.2f}", change.reason or "")
    return Amount(f"{change.mean:+.2f}", f"[{change.low:+.2f}, {change.high:+.2f}]")


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
