"""The files of a run folder that are read next to the records, and whether they all fit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from fastslow.core.decode import shaped
from fastslow.core.errors import CheckpointError, FastSlowError
from fastslow.core.files import plain_name, read_json
from fastslow.core.text import shorten
from fastslow.records.events import Event, ScoreRow
from fastslow.records.progress_file import PROGRESS_FILE

RECORD_FILES = ("run.json", "scores.jsonl", "events.jsonl", "metrics.jsonl", PROGRESS_FILE)
"""Files that change as a run goes on."""
DAMAGE = (FastSlowError, OSError, ValueError, LookupError, TypeError)
"""What reading a folder of someone else's may raise."""
LARGE = 1 << 20
"""Bytes of a report from which on the end of the records is read sooner."""
Stamp: TypeAlias = tuple[tuple[int, int], ...]
"""Time of change and size of each record file that is there."""


@dataclass(frozen=True)
class RunCard:
    """The part of run.json that a report needs."""

    run: str
    """Name of the run folder when it was made."""
    state: str
    """`running`, `finished`, `failed` or `interrupted`."""
    config_hash: str
    tasks: tuple[str, ...]
    """Columns of the matrix: tasks of the stages in order, then held-out ones."""
    stages: tuple[str, ...]
    """The task each stage trains on."""
    command: tuple[str, ...]
    tracker: str | None = None
    """Name of the tracker that was told of the run; None without one."""
    started: str | None = None
    """When, as an ISO 8601 time in UTC."""


def read_card(path: Path) -> RunCard:
    """Read run.json; `CheckpointError` if it is missing or not the card of a run."""
    data = read_object(path)
    try:
        names = RunCard.__dataclass_fields__.keys() & data.keys()  # others are not read
        card = shaped(RunCard, {name: data[name] for name in names})
        for task in card.tasks:
            plain_name(task)  # it is that of folders
        if len({*card.tasks}) < len(card.tasks) or not {*card.stages} <= {*card.tasks}:
            raise ValueError("a task is named twice, or a stage visits a task that is not named")
        "".join((card.run, *card.tasks, *card.command)).encode()  # half a surrogate pair cannot be
    except ValueError as error:
        raise CheckpointError(
            f"{path}: not the card of a run: {shorten(str(error), 200)}. Give a folder that "
            "`fastslow train` made."
        ) from error
    return card


def steps_per_cycle(run_path: Path) -> int:
    """Optimizer updates of a full cycle; `CheckpointError` if config.json does not say."""
    path = run_path / "config.json"
    cycle = read_object(path).get("cycle")
    steps = cycle.get("optimizer_steps") if isinstance(cycle, dict) else None
    if not isinstance(steps, int) or steps < 1:
        raise CheckpointError(
            f"{path}: not the configuration of a run, got cycle.optimizer_steps "
            f"{shorten(repr(steps), 60)}, expected a whole number > 0. Restore it from a copy."
        )
    return steps


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object; `CheckpointError` if it is missing or does not."""
    try:
        data = read_json(path)
        if not isinstance(data, dict):
            raise ValueError(f"a {type(data).__name__} where an object was expected")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read, got {shorten(str(error), 200)}. Give a folder that "
            "`fastslow train` made."
        ) from error
    return data


def require_places(
    scores: Iterable[ScoreRow], events: Iterable[Event], stages: Sequence[str], run_path: Path
) -> None:
    """`CheckpointError`, with the record, unless each belongs to a row and a stage of this run."""
    last = len(stages)
    records = [("scores.jsonl", score) for score in scores]
    for name, record in [*records, *(("events.jsonl", event) for event in events)]:
        row, stage = getattr(record, "row", 0), getattr(record, "stage", 0)
        if row > last or stage >= max(last, 1):
            raise CheckpointError(
                f"{run_path / name}: a record of row {row}, stage {stage} in a run of {last} "
                f"stages, got {shorten(repr(record), 120)}. The file belongs to another run, or "
                "run.json does."
            )


def require_no_record_links(path: Path) -> None:
    """Make sure that no file which is read leads out of the folder.

    Raises:
        OSError: One is a link; names it.
    """
    for name in RECORD_FILES:
        if (path / name).is_symlink():
            raise OSError(f"{name} is a link, and links are not followed")


def record_stamp(path: Path) -> Stamp:
    """What changes when a run records something."""
    stamps = []
    for name in RECORD_FILES:
        try:
            stat = (path / name).lstat()
        except OSError:
            continue
        stamps.append((stat.st_mtime_ns, stat.st_size))
    return tuple(stamps)


def read_report(path: Path, stamp: Stamp) -> dict[str, Any] | None:
    """The report.json of a finished run, which is quicker to read than its records.

    None where there is none, where it is of another state or `LARGE`, or where it is older than
    the records, which then say more.
    """
    report = path / "report.json"
    try:
        stat = report.lstat()
        if stat.st_mtime_ns < max(stamp)[0] or stat.st_size > LARGE or report.is_symlink():
            return None
        content = read_object(report)
    except (FastSlowError, OSError, ValueError):
        return None
    return content if content.get("state") == "finished" else None
