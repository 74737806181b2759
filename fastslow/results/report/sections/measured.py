"""Figures that needed the model itself; a table for each measure of the user's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

from fastslow.records.events import FiguresEvent
from fastslow.results.render.layout import Table, Text, metric_text
from fastslow.results.report.section import Records, Section

WITH_SECTION = ("geometry", "overlap", "proxies")
"""Kinds that have a section of their own."""


@dataclass(frozen=True, slots=True)
class Measured(Section):
    """What was measured, the last of each kind, row and inputs."""

    events: tuple[FiguresEvent, ...]

    @classmethod
    def compute(cls, records: Records) -> Self:
        """Take the last of each."""
        events = records.events_of(FiguresEvent)
        return cls(tuple({(e.kind, e.row, e.of): e for e in events}.values()))

    def of_kind(self, kind: str) -> list[FiguresEvent]:
        """Those of one kind."""
        return [event for event in self.events if event.kind == kind]

    def to_json(self) -> Mapping[str, object]:
        """One object per measurement, its figures by name."""
        return {
            "measured": [
                {f.name: getattr(event, f.name) for f in fields(event)}
                | {"figures": {metric.name: metric for metric in event.figures}}
                for event in self.events
            ]
        }

    def tables(self) -> Sequence[Table]:
        """One table per measure of the user's own, under its name."""
        kinds = dict.fromkeys(event.kind for event in self.events)
        tables = []
        for kind in kinds:
            if kind not in WITH_SECTION:
                events = self.of_kind(kind)
                columns = [f"{event.of}, row {event.row}" for event in events]
                tables.append(figures_table(kind, columns, events))
        return tables


def figures_table(
    title: str, columns: Sequence[str], events: Sequence[FiguresEvent], note: str = ""
) -> Table:
    """One row per figure, one column per event, and the formulas."""
    by_event = [{metric.name: metric for metric in event.figures} for event in events]
    formulas = {m.name: m.formula for event in reversed(events) for m in event.figures}
    names = dict.fromkeys(metric.name for event in events for metric in event.figures)
    rows = [
        (
            Text(name, is_code=True),
            *(metric_text(metrics.get(name), 4) for metrics in by_event),
            Text(formulas[name], is_code=True),
        )
        for name in names
    ]
    return Table(title, ("figure", *columns, "formula"), tuple(rows), note)
