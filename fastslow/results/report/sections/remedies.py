"""What the remedies against forgetting did at the end of each stage, and what that cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from fastslow.records.events import RemedyEvent
from fastslow.results.render.layout import Table, Text
from fastslow.results.report.section import Records, Section, stage_label
from fastslow.results.report.sections.shrink import is_shrink


@dataclass(frozen=True, slots=True)
class Remedies(Section):
    """The last event of each stage and remedy; shrinking has a section of its own."""

    events: tuple[RemedyEvent, ...]

    chapter = "curves"

    @classmethod
    def compute(cls, records: Records) -> Self:
        """Take the last event of each."""
        events = [e for e in records.events_of(RemedyEvent) if not is_shrink(e)]
        return cls(tuple({(e.stage, e.name): e for e in events}.values()))

    def to_json(self) -> Mapping[str, object]:
        """One object per event; no key at all where there is none."""
        return {"remedies": self.events} if self.events else {}

    def tables(self) -> Sequence[Table]:
        """One row per stage and remedy."""
        return [
            Table(
                "Remedies",
                ("stage", "remedy", "figures", "rollouts", "seconds", "notes"),
                tuple(_row(event) for event in self.events),
                "What each remedy against forgetting reports at the end of a stage. Its rollouts "
                "and seconds count as the slow channel's.",
            )
        ]


def _row(event: RemedyEvent) -> tuple[Text, ...]:
    figures = [
        f"{name} undefined" if value is None else f"{name} {value:.4g}"
        for name, value in event.figures.items()
    ]
    return (
        Text(stage_label(event.stage, event.task)),
        Text(event.name),
        Text(", ".join(figures) or "-"),
        Text(str(event.rollouts)),
        Text(f"{event.seconds:.1f}"),
        Text(" ".join(event.notes) or "-"),
    )
