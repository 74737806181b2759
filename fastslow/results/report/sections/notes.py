"""What the channels said a reader must know, and which answers graders could not grade."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from fastslow.records.events import CycleEvent, Event, GraderEvent
from fastslow.results.render.layout import Table, Text
from fastslow.results.report.section import Records, Section, stage_label


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence of a channel on one of its phases, or one on a grader."""

    stage: int
    """Index of the stage, from 0."""
    cycle: int
    """Index of the cycle within the stage, from 0."""
    channel: str
    text: str
    """May quote untrusted text."""


@dataclass(frozen=True, slots=True)
class Notes(Section):
    """All notes, in order."""

    notes: tuple[Note, ...]
    stages: tuple[str, ...]

    chapter = "origin"

    @classmethod
    def compute(cls, records: Records) -> Self:
        """Collect them."""
        notes = [note for event in records.events for note in _notes_of(event)]
        return cls(tuple(notes), records.card.stages)

    def to_json(self) -> Mapping[str, object]:
        """One object per note."""
        return {"notes": self.notes}

    def tables(self) -> Sequence[Table]:
        """One row per note."""
        rows = [
            (
                Text(stage_label(note.stage, self.stages[note.stage])),
                Text(str(note.cycle + 1)),
                Text(note.channel),
                Text(note.text),
            )
            for note in self.notes
        ]
        return [Table("Notes", ("stage", "cycle", "channel", "what happened"), tuple(rows))]


def _notes_of(event: Event) -> Iterator[Note]:
    if isinstance(event, CycleEvent):
        channel = next(iter(event.rollouts), "")
        yield from (Note(event.stage, event.cycle, channel, text) for text in event.notes)
    elif isinstance(event, GraderEvent):
        text = f"{event.failures} answers could not be graded and count as 0; the last, "
        yield Note(event.stage, event.cycle, f"grader of {event.task}", text + event.last)
