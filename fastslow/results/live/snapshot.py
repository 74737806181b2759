"""What a run is doing now, from its folder alone: nothing in it is locked, held open or written.

A run folder may be of a run that works, died, is resumed or was damaged at any moment, and all in
it is untrusted. Whatever cannot be read is said in the snapshot, and may be readable at the next
look.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastslow.core.files import is_file, read_regular
from fastslow.core.samples import Sample, read_sample
from fastslow.core.text import shorten
from fastslow.records.cells import Cell, CellTable
from fastslow.records.events import CycleEvent, Event, RunEvent, StepEvent
from fastslow.records.lock import watched_state
from fastslow.records.progress_file import ProgressNote, read_progress
from fastslow.records.row_metrics import MINUTES, row_metrics
from fastslow.records.tracking.records import RecordsReader, RunRecords
from fastslow.results.reading import DAMAGE, RunCard, read_card, require_no_record_links

UNREADABLE = "unreadable"
"""State of a folder that cannot be read."""
LIVING = ("running", UNREADABLE)
"""States that may become others while one watches; a folder may be unreadable for a moment."""
MAX_SAMPLES = 6
FIGURES = ("slow/reward", "slow/gold_logprob", "fast/best_score")
"""What the curve shows: the first of these that the run reports."""


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment."""

    name: str
    """Of its folder."""
    state: str
    """See `records.lock.read_state`; `UNREADABLE` where the folder cannot be read."""
    reason: str = ""
    """Why it cannot be read."""
    card: RunCard | None = None
    place: str = ""
    """Stage, cycle and phase; untrusted names in it."""
    step: str = ""
    """How far the phase is."""
    elapsed_s: float = 0.0
    """Wall time of the run until now, over all resumes."""
    remaining_s: float | None = None
    """Expected to remain; None where it is not known, or nothing does."""
    cells: Sequence[Sequence[Cell]] = ()
    """The rows of the matrix that were begun: a cell per task; row 0 is the base."""
    rows: int = 0
    """Rows in which every task was measured."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """See `row_metrics`: of the last whole row."""
    curve: Sequence[tuple[int, float]] = ()
    """Stage, from 0, and reward of every update, or what an update of this run reports."""
    curve_name: str = ""
    curve_unit: str = "update"
    """`update`, or `cycle` where no update was recorded."""
    samples: Sequence[Sample] = ()
    """Of the newest cycle that kept some, newest last."""


class RunWatch:
    """Looks at one run folder again and again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = RecordsReader(path)
        self._cells: Sequence[Sequence[Cell]] = ()
        self._metrics: Mapping[str, float] = {}
        self._measured = -1
        """Version of the records that they are of."""

    @property
    def version(self) -> int:
        """Counts up when a record came or went."""
        return self._reader.version

    def look(self) -> Snapshot:
        """The run as it is now; raises nothing."""
        try:
            return self._look()
        except DAMAGE as error:
            return Snapshot(self.path.name, UNREADABLE, shorten(str(error), 300))

    def _look(self) -> Snapshot:
        require_no_record_links(self.path)
        state, card = watched_state(self.path), read_card(self.path / "run.json")
        records = self._reader.read()
        events = records.events
        if self._measured != self.version:
            self._measure(card, records)
            self._measured = self.version
        steps = [event for event in events if isinstance(event, StepEvent)]
        name, curve = _curve(steps or [e for e in events if isinstance(e, CycleEvent)])
        note = read_progress(self.path) if state == "running" else None
        elapsed, remaining = _clock(events, note, self._metrics)
        return Snapshot(
            self.path.name,
            state,
            card=card,
            place=note.phase if note else _place(card, state, self._whole(), events),
            step=note.step if note else "",
            elapsed_s=elapsed,
            remaining_s=remaining,
            cells=self._cells,
            rows=self._whole(),
            metrics=self._metrics,
            curve=curve,
            curve_name=name,
            curve_unit="update" if steps else "cycle",
            samples=last_samples(self.path),
        )

    def _measure(self, card: RunCard, records: RunRecords) -> None:
        """Compute the matrix, and the figures of its last whole row."""
        scores, events = records.scores, records.events
        table = CellTable(scores, card.stages, events)
        begun = max((row.row for row in scores if row.cycle is None), default=-1)
        rows = range(min(begun, len(card.stages)) + 1)
        self._cells = tuple(tuple(table.cell(row, task) for task in card.tasks) for row in rows)
        num_rows = self._whole()
        self._metrics = (
            row_metrics(card.tasks, card.stages, scores, events, num_rows - 1) if num_rows else {}
        )

    def _whole(self) -> int:
        complete = [all(cell.score is not None for cell in row) for row in self._cells]
        return [*complete, False].index(False)


def last_samples(run: Path) -> list[Sample]:
    """The last rollouts that the run kept for people, newest last; none where there are none."""
    files = [path for path in sorted((run / "rollouts").glob("*.txt")) if is_file(path)]
    for path in reversed([path for path in files if not path.is_symlink()]):
        lines = read_regular(path).decode(errors="replace").splitlines()
        if samples := [sample for line in lines if (sample := read_sample(line))]:
            return samples[-MAX_SAMPLES:]
    return []


def _curve(events: Sequence[StepEvent | CycleEvent]) -> tuple[str, list[tuple[int, float]]]:
    """What updates report, or cycles where a run makes none, and its name."""
    for name in FIGURES:
        values = [(e.stage, v) for e in events if (v := e.metrics.get(name)) is not None]
        if values:
            return name, values
    return "", []


def _clock(
    events: Sequence[Event], note: ProgressNote | None, metrics: Mapping[str, float]
) -> tuple[float, float | None]:
    """Seconds until now and seconds that remain."""
    if note is None:
        ends = [event.seconds for event in events if isinstance(event, RunEvent)]
        return max([*ends, 60 * metrics.get(MINUTES, 0.0)]), None
    since = max(0.0, time.time() - note.time)
    remaining = None if note.remaining_s is None else max(0.0, note.remaining_s - since)
    return note.elapsed_s + since, remaining


def _place(card: RunCard, state: str, rows: int, events: Sequence[Event]) -> str:
    """How far a run is that does not say it itself."""
    if rows > len(card.stages):
        return f"{len(card.stages)} of {len(card.stages)} stages measured"
    if not rows:
        return "the base is being measured" if state == "running" else "nothing measured"
    cycles = {e.cycle for e in events if isinstance(e, CycleEvent) and e.stage == rows - 1}
    return f"stage {rows}/{len(card.stages)} {card.stages[rows - 1]}, {len(cycles)} cycles done"
