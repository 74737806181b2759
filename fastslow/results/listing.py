"""The runs of a folder at a glance: state, how far, how well; from their folders alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fastslow.core.errors import FastSlowError
from fastslow.core.files import read_json
from fastslow.core.text import shorten
from fastslow.records.lock import read_state
from fastslow.records.run_folder import require_no_links
from fastslow.results.report.build import build_report

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
    size = sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
    try:
        require_no_links(path)
        started = datetime.fromisoformat(read_json(path / "run.json")["started"])
        state, report = read_state(path), build_report(path)
    except (FastSlowError, OSError, ValueError, KeyError, TypeError) as error:
        return RunSummary(path, UNREADABLE, size, str(error))
    if not (rows := report.rows_measured):
        return RunSummary(path, state, size, stages=len(report.card.stages), started=started)
    scores = [cell.score for cell in report.cells[rows - 1] if cell.score is not None]
    score = sum(scores) / len(scores) if scores else None
    return RunSummary(path, state, size, "", rows - 1, len(report.card.stages), score, started)


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
