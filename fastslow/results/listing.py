"""The runs of a folder at a glance: state, how far, how well; from their folders alone.

Of a run's records the end is read, so that a line costs the same however long the run is.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from statistics import fmean

from fastslow.core.errors import FastSlowError
from fastslow.core.text import shorten
from fastslow.records.cells import CellTable
from fastslow.records.events import ScoreRow
from fastslow.records.jsonl import read_back
from fastslow.records.lock import read_state
from fastslow.results.reading import (
    RunCard,
    read_card,
    read_report,
    record_stamp,
    require_no_record_links,
    require_places,
)

UNREADABLE = "unreadable"
"""State of a folder whose run.json or records are damaged."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One run folder."""

    path: Path
    state: str
    """See `records.lock.read_state`; `UNREADABLE` where the folder cannot be read."""
    bytes: int
    """Size of the folder on the disk."""
    reason: str = ""
    """Why it cannot be read; empty where it can."""
    stages_done: int | None = None
    """Stages that were trained and measured; None where nothing was measured yet."""
    stages: int | None = None
    """Stages of the run."""
    score: float | None = None
    """Mean over all tasks in the last whole row of the matrix, in [0, 1]; None before row 0."""
    started: datetime | None = None
    """In UTC."""


def list_runs(folder: Path) -> list[RunSummary]:
    """Every run folder directly under `folder`, oldest first; other folders are left out."""
    cards = sorted(folder.glob("*/run.json"), key=lambda card: card.stat().st_mtime)
    return [_summary(card.parent) for card in cards]


def listing_lines(runs: Sequence[RunSummary]) -> list[str]:
    """A table of one line per run, under a line of titles; safe to print."""
    titles = ("run", "state", "stage", "score", "started", "size")
    rows = [titles, *map(_row, runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(titles))]
    return [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _summary(path: Path) -> RunSummary:
    size = _size_of(path)
    try:
        require_no_record_links(path)
        card = read_card(path / "run.json")
        started, state = datetime.fromisoformat(card.started or ""), read_state(path, card.state)
        row, scores = _reported_row(path, card) or _last_whole_row(path, card) or (None, [])
    except (FastSlowError, OSError, ValueError) as error:
        return RunSummary(path, UNREADABLE, size, str(error))
    score = fmean(scores) if scores else None
    return RunSummary(path, state, size, "", row, len(card.stages), score, started)


def _reported_row(path: Path, card: RunCard) -> tuple[int, list[float]] | None:
    """The last row as the report of a finished run has it; None where the records must be read."""
    content = read_report(path, record_stamp(path)) or {}
    try:
        rows = content["scores"]
        scores = [float(score) for score in rows[-1]]
    except (LookupError, TypeError, ValueError):
        return None
    is_whole = (len(rows) - 1, len(scores)) == (len(card.stages), len(card.tasks))
    return (len(rows) - 1, scores) if is_whole and all(0 <= s <= 1 for s in scores) else None


def _last_whole_row(path: Path, card: RunCard) -> tuple[int, list[float]] | None:
    """The last row of the matrix in which every task has a score, and these; None before row 0.

    Rows follow each other in the records, and a row is measured under the prompts of the matrix
    before it is under others.
    """
    matrix = (
        record
        for record in read_back(path / "scores.jsonl")
        if isinstance(record, ScoreRow) and record.cycle is None
        if record.sample.prompt_policy in ("seed", "live")
    )
    for row, records in groupby(matrix, key=lambda record: record.row):
        rows = list(records)
        require_places(rows, (), card.stages, path)
        table = CellTable(rows, card.stages, ())
        scores = [score for task in card.tasks if (score := table.score(row, task)) is not None]
        if len(scores) == len(card.tasks):
            return row, scores
    return None


def _size_of(path: Path) -> int:
    """Bytes of the files in a folder; of those that go meanwhile, none."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                total += os.lstat(f"{folder}{os.sep}{name}").st_size
    return total


def _row(run: RunSummary) -> tuple[str, ...]:
    started = run.started.astimezone() if run.started else None
    return (
        shorten(run.path.name, 60),
        run.state,
        "-" if run.stages_done is None else f"{run.stages_done} of {run.stages}",
        "-" if run.score is None else f"{run.score:.3f}",
        f"{started:%Y-%m-%d %H:%M}" if started else "-",
        _size(run.bytes),
    )


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
