"""The runs and ablations under a folder, found by listing it: no name from outside becomes a path.

Links are not followed. Figures of a run are read again only after its records changed, those of a
finished one from its report, and at most for a second at each look, so that a folder of hundreds of
runs is listed at once.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fastslow.records.lock import watched_state
from fastslow.records.row_metrics import SCORES
from fastslow.results.live.snapshot import LIVING, RunWatch, Snapshot
from fastslow.results.reading import (
    DAMAGE,
    Stamp,
    read_card,
    read_report,
    record_stamp,
    require_no_record_links,
)

BUDGET_S = 1.0
"""Time for reading records at one look; what is not read by then comes at a later one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A run in the list."""

    key: str
    """Its path under the folder, with `/` between: `RUN`, or `ABLATION/RUN`."""
    changed: str
    """When it last wrote something, to the minute, here."""
    snapshot: Snapshot | None
    """None as long as it was not read yet."""


class Catalogue:
    """Everything that can be looked at under one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._latest: dict[str, tuple[Stamp, Snapshot]] = {}
        self._watches: dict[str, RunWatch] = {}
        """Of runs that have not ended."""

    def runs(self) -> dict[str, Path]:
        """The run folders there are, by key."""
        runs: dict[str, Path] = {}
        for folder in _folders(self._root):
            if _has(folder, "run.json"):
                runs[folder.name] = folder
            else:
                inner = (path for path in _folders(folder) if _has(path, "run.json"))
                runs |= {f"{folder.name}/{path.name}": path for path in inner}
        return runs

    def ablations(self) -> dict[str, Path]:
        """Folders of ablations that have written what their runs showed, by name."""
        folders = [*_folders(self._root)]
        folders += [inner for folder in folders for inner in _folders(folder)]
        names = {folder.relative_to(self._root).as_posix(): folder for folder in folders}
        return {name: folder for name, folder in names.items() if _has(folder, "records.jsonl")}

    def look(self) -> list[Entry]:
        """Every run, the one that wrote last first."""
        runs, end = self.runs(), time.monotonic() + BUDGET_S
        stamps = {key: record_stamp(path) for key, path in runs.items()}
        for key in self._latest.keys() - runs.keys():
            del self._latest[key]
            self._watches.pop(key, None)
        order = sorted(runs, key=lambda key: max(stamps[key], default=(0, 0)), reverse=True)
        return [self._entry(key, runs[key], stamps[key], end) for key in order]

    def _entry(self, key: str, path: Path, stamp: Stamp, end: float) -> Entry:
        latest = self._latest.get(key)
        if (
            latest is None or latest[0] != stamp or key in self._watches
        ) and time.monotonic() < end:
            watch = self._watches.pop(key, None) or RunWatch(path)
            latest = self._latest[key] = stamp, reported(path, stamp) or watch.look()
            if latest[1].state in LIVING:
                self._watches[key] = watch
        changed = datetime.fromtimestamp(max((ns for ns, _ in stamp), default=0) / 1e9)
        snapshot = latest[1] if latest else None
        return Entry(key, f"{changed:%Y-%m-%d %H:%M}", snapshot)


def reported(path: Path, stamp: Stamp) -> Snapshot | None:
    """A finished run as its report has it; None where the records must be read."""
    if (content := read_report(path, stamp)) is None:
        return None
    try:
        require_no_record_links(path)
        card, state = read_card(path / "run.json"), watched_state(path)
        metrics = {name: content["metrics"][name]["value"] for name in SCORES}
        seconds = float(content["seconds"])
        numbers = {name: float(value) for name, value in metrics.items() if value is not None}
    except DAMAGE:
        return None
    if state != "finished":
        return None
    place = f"{len(card.stages)} of {len(card.stages)} stages measured"
    return Snapshot(path.name, state, "", card, place, elapsed_s=seconds, metrics=numbers)


def _folders(root: Path) -> Iterator[Path]:
    """Folders directly in a folder, in order; no links, and no names that no address can hold.

    A folder that cannot be read has none.
    """
    try:
        with os.scandir(root) as entries:
            names = sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
    except OSError:
        return
    yield from (root / name for name in names if name.isprintable())


def _has(folder: Path, name: str) -> bool:
    """Whether something of that name is in a folder, be it a link."""
    return os.path.lexists(folder / name)
