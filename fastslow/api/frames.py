"""Records of a run as pandas data frames; stages and cycles count from 1 there, as in reports."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from fastslow.records.events import Event, ScoreRow, StepEvent
from fastslow.records.jsonl import to_json

if TYPE_CHECKING:
    from pandas import DataFrame

FROM_ONE = ("stage", "cycle")
"""Columns that records count from 0."""
COUNTS = ("row", "stage", "cycle", "step")
"""Columns of whole numbers that say where a record belongs; some may be missing."""


def scores_frame(rows: Iterable[ScoreRow]) -> "DataFrame":
    """One line per graded completion; see `RunFolder.scores`."""
    return _frame(map(to_json, rows), ("row", "cycle", "task", "example", "score"))


def events_frame(events: Iterable[Event]) -> "DataFrame":
    """One line per event; see `RunFolder.events`."""
    return _frame(map(to_json, events), ("event", "stage", "cycle", "row", "task"))


def steps_frame(events: Iterable[Event]) -> "DataFrame":
    """One line per update, a column per figure; see `RunFolder.metrics`."""
    steps = (event for event in events if isinstance(event, StepEvent))
    first = ("stage", "cycle", "step", "time")
    return _frame(
        ({**{name: getattr(e, name) for name in first}, **e.metrics} for e in steps), first
    )


def _frame(records: Iterable[Mapping[str, Any]], first: tuple[str, ...]) -> "DataFrame":
    """The records with these columns first, which are there without any record too."""
    import pandas

    frame = pandas.DataFrame.from_records(list(records))
    frame = frame.reindex(columns=[*first, *(name for name in frame if name not in first)])
    for name in {*first} & {*COUNTS}:
        counts = frame[name].astype("Int64")
        frame[name] = counts + 1 if name in FROM_ONE else counts
    return frame
