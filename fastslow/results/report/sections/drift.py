"""Tables of how far the weights moved from the base, and whether that goes with forgetting."""

from fastslow.records.events import NEUTRAL, DriftEvent
from fastslow.results.render.layout import Table, Text
from fastslow.results.report.data import Report
from fastslow.results.report.sections.forgetting import value_or_reason

ENTROPY = "Nats per generated token at temperature 1."
NOTES = {
    "kl_fst": "KL(tuned || base) in nats per generated token on the task's test inputs, sampled "
    "from the tuned policy, both given the same text.",
    "kl_razor": "KL(base || tuned) in nats per generated token on the task's test inputs, sampled "
    "from the base, both given the same text.",
    "kl_system": "KL(tuned, deployed text || base, seed text), estimator k3 at tokens the former "
    "draws: what weights and text did together. Not comparable with the exact divergences.",
    "entropy": f"Of the tuned policy, at tokens it draws. {ENTROPY}",
    "entropy_base": f"Of the base, at tokens it draws. {ENTROPY}",
    "neutral_ce_delta": "Cross-entropy of fixed prose of no task, adapter on minus off, in nats "
    "per token; positive = general language got worse. Brackets: standard error over passages.",
}
HIDDEN = ("neutral_ce_tuned", "neutral_ce_base")
"""Halves of a difference that has a table; report.json has them."""
TEXTS = {"with_text": "deployed text", "without_text": "seed text"}


def drift_tables(report: Report) -> list[Table]:
    """One table per divergence and entropy, then the fit of forgetting on KL."""
    names = [n for n in dict.fromkeys(e.name for e in report.drift) if n not in HIDDEN]
    return [*(_drift(report, name) for name in names), _fit(report)]


def _drift(report: Report, name: str) -> Table:
    events = [event for event in report.drift if event.name == name]
    values = {(e.row, e.text, e.task): e for e in events}
    columns = [c for c in (*report.tasks, NEUTRAL) if any(e.task == c for e in events)]
    lines = dict.fromkeys((event.row, event.text) for event in events)
    is_alone = columns == [NEUTRAL]
    rows = [
        (
            Text(str(row)),
            *(() if is_alone else (Text(TEXTS[text]),)),
            *(_cell(values.get((row, text, column))) for column in columns),
        )
        for row, text in lines
    ]
    header = ("after stage", *(() if is_alone else ("text",)), *columns)
    return Table(f"Drift from the base: {name}", header, tuple(rows), NOTES.get(name, ""))


def _cell(event: DriftEvent | None) -> Text:
    if event is None:
        return Text("-", "dim")
    if event.value is None:
        return Text(event.reason or "not measured", "dim")
    error = f" ({event.se:.4f})" if event.se is not None and event.task == NEUTRAL else ""
    return Text(f"{event.value:.4f}{error}")


def _fit(report: Report) -> Table:
    fit = report.kl_fit
    return Table(
        "Forgetting on KL",
        ("figure", "value", "formula"),
        tuple(
            (Text(m.name, is_code=True), value_or_reason(m, 3), Text(m.formula, is_code=True))
            for m in fit.values()
        )
        if report.drift
        else (),
        "Points: per later stage and earlier task, kl_razor on the stage's own inputs and what the "
        "earlier task has lost since it was learned. A description of these points, no law.",
    )
