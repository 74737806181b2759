"""A report in a few sentences, each with its uncertainty."""

from fastslow.report.data import Report
from fastslow.report.layout import brackets, difference
from fastslow.report.plasticity import TaskProbe


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
