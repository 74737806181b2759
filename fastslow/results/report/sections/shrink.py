"""What scaling the adapter down after a stage gave up and saved."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from fastslow.records.events import RemedyEvent
from fastslow.results.render.layout import Table, Text, score_or_dash
from fastslow.results.report.section import Records, Section, stage_label

NEEDED = (
    "keep_share",
    "factor",
    "validation_start",
    "validation_before",
    "validation_after",
    "validation_n",
)
"""Figures that every event of this remedy has."""


def is_shrink(event: RemedyEvent) -> bool:
    """Whether a remedy's event is of the remedy `shrink` and has its figures."""
    has_figures = all(event.figures.get(name) is not None for name in NEEDED)
    return event.name == "shrink" and has_figures


@dataclass(frozen=True, slots=True)
class Shrink(Section):
    """The last event of each stage."""

    events: tuple[RemedyEvent, ...]

    chapter = "curves"

    @classmethod
    def compute(cls, records: Records) -> Self:
        """Take the last event of each stage."""
        events = records.events_of(RemedyEvent)
        return cls(tuple({e.stage: e for e in events if is_shrink(e)}.values()))

    def to_json(self) -> Mapping[str, object]:
        """One object per stage."""
        return {"shrink": [_event_json(event) for event in self.events]}

    def tables(self) -> Sequence[Table]:
        """One row per stage."""
        header = ("stage", "factor", "start", "left", "scaled", "share of the gain kept")
        return [
            Table(
                "Shrink",
                (*header, "kl before", "kl after", "earlier tasks"),
                tuple(_row(event) for event in self.events),
                "The adapter after each stage, scaled to the smallest factor that keeps the "
                "configured share of the stage's gain. Validation scores as the stage found the "
                "adapter, as it left it, and scaled; KL(tuned || base) in nats per token on "
                "validation inputs; what the scaling changed on validation of earlier tasks.",
            )
        ]


def _figure(event: RemedyEvent, name: str) -> float:
    value = event.figures[name]
    assert value is not None
    return value


def _earlier(event: RemedyEvent) -> Iterator[tuple[str, float, float]]:
    """Each earlier task, its score before and after scaling."""
    for name, before in event.figures.items():
        kind, _, task = name.partition("/")
        after = event.figures.get(f"earlier_after/{task}")
        if kind == "earlier_before" and before is not None and after is not None:
            yield task, before, after


def _event_json(event: RemedyEvent) -> dict[str, object]:
    figures = event.figures
    return {
        "stage": event.stage,
        "task": event.task,
        "share": figures["keep_share"],
        "factor": figures["factor"],
        "reason": " ".join(event.notes) or None,
        "validation": {
            "start": figures["validation_start"],
            "before": figures["validation_before"],
            "after": figures["validation_after"],
            "n": int(_figure(event, "validation_n")),
        },
        "kl_fst": {"before": figures.get("kl_before"), "after": figures.get("kl_after")},
        "earlier": {task: {"before": b, "after": a} for task, b, a in _earlier(event)},
        "rollouts": event.rollouts,
        "seconds": event.seconds,
    }


def _row(event: RemedyEvent) -> tuple[Text, ...]:
    reason = " ".join(event.notes)
    names = ("validation_start", "validation_before", "validation_after")
    start, before, after = (_figure(event, name) for name in names)
    share = (after - start) / (before - start) if before > start else None
    kl = (event.figures.get("kl_before"), event.figures.get("kl_after"))
    earlier = ", ".join(f"{task} {b - a:+.2f}" for task, a, b in _earlier(event))
    return (
        Text(stage_label(event.stage, event.task)),
        Text(f"{_figure(event, 'factor'):g}" + (f": {reason}" if reason else "")),
        *(Text(score_or_dash(value)) for value in (start, before, after, share)),
        *(Text("-" if value is None else f"{value:.4f}") for value in kl),
        Text(earlier or "-"),
    )
