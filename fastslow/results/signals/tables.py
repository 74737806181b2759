"""A study of signals in words and tables; escaping is left to whoever shows it."""

from collections.abc import Iterable, Mapping
from typing import get_args

from fastslow.measure.scores.routing_curve import RoutingCurve
from fastslow.measure.scores.validity import Role, SignalValidity, Validity
from fastslow.measure.stats.bootstrap import Estimate
from fastslow.records.validity_file import SignalStudy
from fastslow.results.render.layout import Style, Table, Text, row

COLUMNS: Mapping[str, str] = {
    "auroc": "AUROC",
    "difference": "less free",
    "spearman": "rho",
    "partial": "partial (i)",
    "partial_free": "partial (ii)",
    "unfamiliarity": "unfamiliar",
}
"""Figures of the tables and what heads their columns."""
ROLES: tuple[Role, ...] = get_args(Role)
NOTE = (
    "95 % bootstrap intervals. AUROC: of wrong answers, .5 is chance. Less free: AUROC less that "
    "of the best free baseline, chosen again in every draw; for a free one, less chance. rho: with "
    "the difficulty. Partial: given the controls of familiarity (i), and given first_logprob and "
    "first_entropy as well (ii). Unfamiliar: rho with the mean rank of the controls. How to read "
    "it: docs/signals.md."
)


def headline(study: SignalStudy) -> str:
    """The verdict of the primary signal."""
    return f"{study.primary}: {study.overall.signals[study.primary].reason}"


def study_tables(study: SignalStudy) -> list[Table]:
    """Every table of the page: over all tasks, each task, verdicts, routing, and what is absent."""
    tables = [validity_table(study.overall, study)]
    if len(study.tasks) > 1:
        tables += [validity_table(validity, study) for validity in study.tasks.values()]
    reasons = [row(s.signal, s.reason) for s in study.overall.signals.values()]
    tables.append(Table("Verdicts", ("signal", "verdict"), tuple(reasons)))
    tables += routing_tables(study)
    missing = [row(*text.split(": ", 1)) for text in (*study.absent, *study.overall.notes)]
    tables.append(Table("Not in this report", ("figure", "reason"), tuple(missing)))
    return [table for table in tables if table.rows]


def validity_table(validity: Validity, study: SignalStudy, *, brief: bool = False) -> Table:
    """Figures of every signal, on one task or over several; the primary first, then free ones.

    `brief`: without roles and without `spearman`, for a terminal.
    """
    columns = {f: name for f, name in COLUMNS.items() if not (brief and f == "spearman")}
    signals = sorted(validity.signals.values(), key=lambda signal: ROLES.index(signal.role))
    labels = ", ".join(dict.fromkeys(study.labels[task] for task in validity.tasks))
    wrong = "" if validity.wrong is None else f", {validity.wrong} of them answered wrong"
    subject = validity.tasks[0] if len(validity.tasks) == 1 else f"{len(validity.tasks)} tasks"
    controls = ", ".join(validity.controls) or "none"
    return Table(
        f"Signals on {subject}",
        ("signal", *("role",) * (not brief), *columns.values(), "earned"),
        tuple(_signal_row(signal, columns, brief) for signal in signals),
        f"{validity.examples} problems{wrong}. Difficulty: {labels}. Controls of familiarity: "
        f"{controls}. {NOTE}",
    )


def _signal_row(signal: SignalValidity, columns: Iterable[str], brief: bool) -> tuple[Text, ...]:
    style: Style = "strong" if signal.role == "primary" else "plain"
    earned = "yes" if signal.earned else "no"
    cells = (estimate_cell(signal.figures[name], signed=name != "auroc") for name in columns)
    role = (Text(signal.role),) * (not brief)
    return (Text(signal.signal, style), *role, *cells, Text(earned, style))


def estimate_cell(estimate: Estimate, *, signed: bool) -> Text:
    """A figure with its interval, or a dash."""
    value, interval, form = estimate.metric.value, estimate.interval, "+z.2f" if signed else ".2f"
    if value is None:
        return Text("-", "dim")
    if interval is None:
        return Text(f"{value:{form}}")
    return Text(f"{value:{form}} [{interval.low:{form}}, {interval.high:{form}}]")


def pair_name(curve: RoutingCurve) -> str:
    """The arms of a curve and their task."""
    return f"{curve.task}, {curve.cheap.name} / {curve.strong.name}"


def routing_tables(study: SignalStudy) -> list[Table]:
    """The pairs of arms, and what each signal would gain by routing between them."""
    pairs = [
        row(
            pair_name(curve),
            f"{sum(curve.cheap.scores) / len(curve.cheap.scores):.2f}",
            f"{sum(curve.strong.scores) / len(curve.strong.scores):.2f}",
            f"{curve.worse_frac:.2f}",
            f"{curve.cheap.prompt_tokens:.0f}",
            f"{curve.strong.prompt_tokens:.0f}",
            "yes" if curve.eligible else "no",
        )
        for curve in study.curves
    ]
    gains = [
        row(pair_name(curve), name, estimate_cell(gain, signed=True))
        for curve in study.curves
        for name, gain in curve.gains.items()
    ]
    header = ("arms", "score", "of the latter", "worse on", "tokens", "of the latter", "eligible")
    note = (
        "The former is cheap, the latter strong. Worse on: share of problems on which the strong "
        "arm is worse. Eligible: better by .05 on average, worse on .10 at most; elsewhere a gain "
        "is a guess of the label."
    )
    gain_note = (
        "What sending the hardest problems to the strong arm gains, of what the best order would: "
        "1 is that order, 0 chance. The signal is read under the cheap arm."
    )
    return [
        Table("Pairs of arms", header, tuple(pairs), note),
        Table("Routing gain", ("arms", "signal", "gain"), tuple(gains), gain_note),
    ]
