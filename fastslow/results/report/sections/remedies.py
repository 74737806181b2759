"""What the remedies against forgetting did at the end of each stage, and what that cost."""

from collections.abc import Iterator, Mapping

from fastslow.records.events import RemedyEvent
from fastslow.results.render.layout import Table, Text, row, score_or_dash
from fastslow.results.report.section import Records, Section, stage_label

SHRINK = (
    "keep_share",
    "factor",
    "validation_start",
    "validation_before",
    "validation_after",
    "validation_n",
)
"""Figures that every event of the remedy `shrink` has."""


class Remedies(Section):
    """The last event of each stage and remedy; shrinking has a section of its own."""

    chapter = "curves"

    def __init__(self, records: Records) -> None:
        events = [e for e in records.events_of(RemedyEvent) if not _is_shrink(e)]
        self.events = list({(e.stage, e.name): e for e in events}.values())

    def to_json(self) -> Mapping[str, object]:
        # no key at all without a remedy, so that reports of other runs stay as they are
        return {"remedies": self.events} if self.events else {}

    def tables(self) -> Iterator[Table]:
        yield Table(
            "Remedies",
            ("stage", "remedy", "figures", "rollouts", "seconds", "notes"),
            tuple(
                row(
                    stage_label(event.stage, event.task),
                    event.name,
                    _figures(event) or "-",
                    event.rollouts,
                    f"{event.seconds:.1f}",
                    " ".join(event.notes) or "-",
                )
                for event in self.events
            ),
            "What each remedy against forgetting reports at the end of a stage. Its rollouts and "
            "seconds count as the slow channel's.",
        )


def _figures(event: RemedyEvent) -> str:
    figures = event.figures.items()
    return ", ".join(f"{name} {'undefined' if v is None else f'{v:.4g}'}" for name, v in figures)


def _is_shrink(event: RemedyEvent) -> bool:
    """Whether an event is of the remedy `shrink`, and not of another that took its name."""
    return event.name == "shrink" and all(event.figures.get(name) is not None for name in SHRINK)


class Shrink(Section):
    """What scaling the adapter down gave up and saved, the last event of each stage."""

    chapter = "curves"

    def __init__(self, records: Records) -> None:
        events = records.events_of(RemedyEvent)
        self.events = list({e.stage: e for e in events if _is_shrink(e)}.values())

    def to_json(self) -> Mapping[str, object]:
        return {"shrink": [_shrink_json(event) for event in self.events]}

    def tables(self) -> Iterator[Table]:
        header = ("stage", "factor", "start", "left", "scaled", "share of the gain kept")
        yield Table(
            "Shrink",
            (*header, "kl before", "kl after", "earlier tasks"),
            tuple(_shrink_row(event) for event in self.events),
            "The adapter after each stage, scaled to the smallest factor that keeps the configured "
            "share of the stage's gain. Validation scores as the stage found the adapter, as it "
            "left it, and scaled; KL(tuned || base) in nats per token on validation inputs; what "
            "the scaling changed on validation of earlier tasks.",
        )


def _values(event: RemedyEvent) -> dict[str, float]:
    return {name: value for name, value in event.figures.items() if value is not None}


def _earlier(values: Mapping[str, float]) -> Iterator[tuple[str, float, float]]:
    """Each earlier task, its score before and after scaling."""
    for name, before in values.items():
        kind, _, task = name.partition("/")
        if kind == "earlier_before" and f"earlier_after/{task}" in values:
            yield task, before, values[f"earlier_after/{task}"]


def _shrink_json(event: RemedyEvent) -> dict[str, object]:
    values = _values(event)
    return {
        "stage": event.stage,
        "task": event.task,
        "share": values["keep_share"],
        "factor": values["factor"],
        "reason": " ".join(event.notes) or None,
        "validation": {
            **{name: values[f"validation_{name}"] for name in ("start", "before", "after")},
            "n": int(values["validation_n"]),
        },
        "kl_fst": {name: values.get(f"kl_{name}") for name in ("before", "after")},
        "earlier": {task: {"before": b, "after": a} for task, b, a in _earlier(values)},
        "rollouts": event.rollouts,
        "seconds": event.seconds,
    }


def _shrink_row(event: RemedyEvent) -> tuple[Text, ...]:
    values, reason = _values(event), " ".join(event.notes)
    start, before, after = (values[f"validation_{name}"] for name in ("start", "before", "after"))
    share = (after - start) / (before - start) if before > start else None
    kl = (values.get("kl_before"), values.get("kl_after"))
    earlier = ", ".join(f"{task} {b - a:+.2f}" for task, a, b in _earlier(values))
    return row(
        stage_label(event.stage, event.task),
        f"{values['factor']:g}" + (f": {reason}" if reason else ""),
        *(score_or_dash(value) for value in (start, before, after, share)),
        *("-" if value is None else f"{value:.4f}" for value in kl),
        earlier or "-",
    )
