"""A report in a few sentences, each with its uncertainty."""

from collections.abc import Sequence

from fastslow.records.events import CycleEvent
from fastslow.records.seal import broken_seal
from fastslow.results.render.layout import brackets, difference
from fastslow.results.report.section import Report
from fastslow.results.report.sections.answers import Answers
from fastslow.results.report.sections.metrics import Metrics
from fastslow.results.report.sections.plasticity import Plasticity, TaskProbe
from fastslow.results.report.sections.rollback import Rollback
from fastslow.results.report.sections.tasks import Tasks, TaskSummary

SKIPPED = "slow/skipped_updates"
"""Updates of a cycle that were not made, among its metrics."""


def verdict(report: Report) -> str:
    """The tasks learned and forgotten, in a few sentences; never that nothing was forgotten."""
    return " ".join(verdict_sentences(report))


def verdict_sentences(report: Report) -> list[str]:
    """The sentences of `verdict`, the most important one first; at least one."""
    metrics, summaries = report.section(Metrics), report.section(Tasks).summaries
    rows, deployed = len(report.cells), report.section(Rollback).event
    sentences = []
    if (problem := broken_seal(report.path)) is not None:
        sentences.append(f"Not what the run wrote: {problem}.")
    if report.card.state != "finished" or report.rows_measured < rows:
        sentences.append(
            f"The run is {report.card.state}: {report.rows_measured} of {rows} rows of the matrix "
            "are measured."
        )
    sentences += _skipped(report)
    sentences += _learned(metrics, summaries)
    sentences += [f"{alarm}." for alarm in report.section(Answers).alarms]
    sentences += _forgotten(metrics, summaries)
    if deployed is not None and deployed.row < len(report.card.stages):
        sentences.append(
            f"Rolled back: in use is the policy after stage {deployed.row} of "
            f"{len(report.card.stages)}."
        )
    return sentences + [_probe_sentence(probe) for probe in report.section(Plasticity).probes]


def _skipped(report: Report) -> list[str]:
    """The updates that were not made, and why; nothing where all were made."""
    cycles = [e for e in report.events_of(CycleEvent) if SKIPPED in e.metrics]
    skipped = sum(round(event.metrics[SKIPPED] or 0) for event in cycles)
    if not skipped:
        return []
    planned = len(cycles) * report.steps_per_cycle
    equal = [e.metrics.get("slow/zero_variance_frac") for e in cycles if e.metrics[SKIPPED]]
    if all(share == 1.0 for share in equal):
        reason = "all rewards of every group were equal"
    else:
        reason = "no group had rewards that differ and a difficulty that is trained on"
    where = "" if skipped == planned else "in the others "
    return [f"{planned - skipped} of {planned} updates were made: {where}{reason}."]


def _learned(metrics: Metrics, summaries: Sequence[TaskSummary]) -> list[str]:
    trained = [summary for summary in summaries if summary.learned_row is not None]
    learned = [summary.task for summary in trained if summary.is_learned]
    names = f" ({', '.join(learned)})" if learned else ""
    level = metrics.metrics["learning_accuracy"].value
    end = "." if level is None else f"; learning accuracy {level:.2f} (learning_accuracy)."
    is_graded = all(summary.guess is not None for summary in trained)
    above = "beyond chance" if is_graded else "beyond the base"
    sentences = [f"Learned {len(learned)} of {len(trained)} tasks {above}{names}{end}"]
    if not is_graded:
        sentences.append("Chance is not known: the run did not grade guessing.")
    if guessing := [summary for summary in trained if summary.is_above_chance is False]:
        sentences.append(
            f"Not significantly above chance: {'; '.join(map(_against_chance, guessing))}."
        )
    return sentences if learned else [*sentences, "With nothing learned, forgetting says nothing."]


def _against_chance(summary: TaskSummary) -> str:
    score, guess = summary.learned, summary.guess
    assert score is not None
    assert guess is not None
    assert score.score is not None
    return f"{summary.task} {score.score:.2f} after its stage, guessing {guess.best:.2f}"


def _forgotten(metrics: Metrics, summaries: Sequence[TaskSummary]) -> list[str]:
    forgetting, transfer = metrics.metrics["forgetting_chaudhry"], metrics.metrics["bwt_gem"]
    if forgetting.value is None or transfer.value is None:
        return [f"Forgetting is not measured: {forgetting.reason or transfer.reason}."]
    amount = f"{abs(forgetting.value):.2f} on average (forgetting_chaudhry)"
    is_loss, interval = forgetting.value >= 0, brackets(metrics.intervals.get("bwt_gem"))
    sentences = [
        (f"Forgot {amount}" if is_loss else f"Ended above the earlier best by {amount}")
        + f"; backward transfer {transfer.value:+.2f}{interval} (bwt_gem)."
    ]
    changes = {s.task: s.change.difference for s in summaries if s.change.difference is not None}
    dropped = [f"{task} {difference(change)}" for task, change in changes.items() if change.is_drop]
    if dropped:
        sentences.append(f"Dropped significantly: {'; '.join(dropped)}.")
    unclear = {task: change for task, change in changes.items() if not change.is_drop}
    if unclear:
        limit = max(change.smallest_detectable for change in unclear.values())
        sentences.append(
            f"No significant drop on {', '.join(unclear)}, but one below {limit:.2f} could have "
            "been missed."
        )
    return sentences


def _probe_sentence(probe: TaskProbe) -> str:
    """Whether the end of a probe differs significantly from the base's."""
    name = "probe_end_difference"
    value, interval = probe.metrics[name].value, probe.estimates[name].interval
    place = f"on the probe {probe.task}, from the weights of row {probe.row}"
    if value is None or interval is None:
        return f"Plasticity is not measured {place}."
    result = "Lost plasticity" if interval.high < 0 else "No significant loss of plasticity"
    return f"{result} {place}: {value:+.2f}{brackets(interval)} against the base ({name})."
