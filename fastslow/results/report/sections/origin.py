"""How a run was made: what the channels noted, and the machine with its versions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fastslow.records.events import CycleEvent, Event, GraderEvent
from fastslow.results.reading import read_object
from fastslow.results.render.layout import Table, Text, row
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


class Notes(Section):
    """What a reader must know, in order."""

    chapter = "origin"

    def __init__(self, records: Records) -> None:
        self.stages = records.card.stages
        self.notes = [note for event in records.events for note in _notes_of(event)]

    def to_json(self) -> Mapping[str, object]:
        return {"notes": self.notes}

    def tables(self) -> Iterator[Table]:
        rows = [
            row(stage_label(n.stage, self.stages[n.stage]), n.cycle + 1, n.channel, n.text)
            for n in self.notes
        ]
        yield Table("Notes", ("stage", "cycle", "channel", "what happened"), tuple(rows))


def _notes_of(event: Event) -> Iterator[Note]:
    if isinstance(event, CycleEvent):
        channel = next(iter(event.rollouts), "")
        yield from (Note(event.stage, event.cycle, channel, text) for text in event.notes)
    elif isinstance(event, GraderEvent):
        place = event.stage, event.cycle, f"grader of {event.task}"
        if event.failures:
            text = f"{event.failures} answers could not be graded and count as 0; the last, "
            yield Note(*place, text + event.last)


class Tracking(Section):
    """The tracker that was told of the run; nothing where there was none."""

    chapter = "origin"

    def __init__(self, records: Records) -> None:
        self.tracker = records.card.tracker

    def to_json(self) -> Mapping[str, object]:
        return {"tracker": self.tracker} if self.tracker else {}

    def tables(self) -> Iterator[Table]:
        if self.tracker:
            yield Table("Tracker", ("tracker",), ((Text(self.tracker, is_code=True),),))


class Environment(Section):
    """environment.json as it is."""

    chapter = "origin"

    def __init__(self, records: Records) -> None:
        self.environment = read_object(records.path / "environment.json")

    def to_json(self) -> Mapping[str, object]:
        return {"environment": self.environment}

    def page_tables(self) -> Iterator[Table]:
        rows = []
        for name, value in self.environment.items():
            inner = value.items() if isinstance(value, Mapping) else [("", value)]
            rows += [row(f"{name} {key}".strip(), str(leaf)) for key, leaf in inner]
        yield Table("Environment", ("of the machine", "value"), tuple(rows))
