"""The record files of a run: one JSON line per fact, append-only and readable after a crash."""

import hashlib
import json
import math
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Self, get_args

from pydantic_core import from_json

from fastslow.core.decode import shaped
from fastslow.core.errors import CheckpointError
from fastslow.core.files import append_to, open_regular, parse_json, read_regular
from fastslow.core.types import Json
from fastslow.records.events import CycleEvent, Event, RemedyEvent, ScoreRow, StepEvent

_PLACES = ("run", "row", "cycle", "gold", "reused", "cluster")
"""Fields of a `ScoreRow` that stand in its line next to those of its sample."""
_EVENTS: dict[str, type[Event]] = {kind.event: kind for kind in get_args(Event)}
_DAMAGE = (ValueError, TypeError, KeyError, AssertionError, RecursionError)
"""What a line that is not a record raises."""
_BLOCK = 1 << 17
"""Bytes read at once from the end of a file."""


def to_json(record: ScoreRow | Event) -> dict[str, Json]:
    """Plain data of one record, as it stands in its line."""
    if isinstance(record, ScoreRow):
        return {name: getattr(record, name) for name in _PLACES} | asdict(record.sample)
    data: dict[str, Json] = {"event": record.event, **asdict(record)}
    if isinstance(record, StepEvent | CycleEvent):
        data["metrics"] = _finite(record.metrics)
    if isinstance(record, RemedyEvent):
        data["figures"] = _finite(record.figures)
    return data


def _finite(figures: Mapping[str, float | None]) -> dict[str, float | None]:
    """The figures with None in the place of what JSON cannot hold."""
    return {k: v if v is not None and math.isfinite(v) else None for k, v in figures.items()}


def score_from_json(data: Mapping[str, Any]) -> ScoreRow:
    """Inverse of `to_json` for a line of `scores.jsonl`.

    Raises:
        KeyError, TypeError, ValueError: It is not such a line.
    """
    sample = dict(data)
    fields: dict[str, Any] = {"sample": sample}
    for name in _PLACES:
        if name in sample:
            fields[name] = sample.pop(name)
    row = shaped(ScoreRow, fields)
    if not 0 <= row.sample.score <= 1:
        raise ValueError(f"score {row.sample.score!r} is not in [0, 1]")
    return row


def event_from_json(data: Mapping[str, Any]) -> Event:
    """Inverse of `to_json` for a line of `events.jsonl` or `metrics.jsonl`.

    Raises:
        KeyError, TypeError, ValueError: It is not such a line.
    """
    values = dict(data)
    kind = values.pop("event")
    if kind == "shrink":
        kind, values = "remedy", _remedy_of_shrink(values)
    if kind not in _EVENTS:
        raise ValueError(f"event {kind!r} is not one of {', '.join(_EVENTS)}")
    return shaped(_EVENTS[kind], values)


def _remedy_of_shrink(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `RemedyEvent`, from those that shrinking wrote before it was a remedy."""
    scores = [f"validation_{name}" for name in ("start", "before", "after", "n")]
    figures = {name: values[name] for name in ("factor", *scores, "kl_before", "kl_after")}
    for moment in ("earlier_before", "earlier_after"):
        figures |= {f"{moment}/{task}": score for task, score in {**values[moment]}.items()}
    reason = values["reason"]
    notes = [] if reason is None else [reason]
    fields = {name: values[name] for name in ("stage", "task", "rollouts", "seconds")}
    figures["keep_share"] = values["share"]
    return fields | {"name": "shrink", "figures": figures, "notes": notes}


class RecordWriter:
    """Appends records to one file. Each line is in the operating system's hands on return."""

    def __init__(self, path: Path, require: Callable[[], None] = lambda: None) -> None:
        """Open `path` for appending; a line that a crash left unfinished is cut off.

        `require` raises where the file may not be written any more, and is asked before it is.

        Raises:
            CheckpointError: The file cannot be opened for writing.
        """
        self.path, self._may_write = path, require
        try:
            self._file = append_to(path)
            os.ftruncate(self._file.fileno(), _end_of_last_line(path))
            self._file.seek(0, os.SEEK_END)
            self._digest = hashlib.sha256(read_regular(path))
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be written, got {error.strerror}. Records are appended here; "
                "check that the folder exists and is writable."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, *records: ScoreRow | Event) -> None:
        """Write the records, one line each, all or none of them.

        Raises:
            CheckpointError: The disk refused; what was there before is intact.
        """
        self._may_write()
        lines = "".join(json.dumps(to_json(r), allow_nan=False) + "\n" for r in records)
        content = lines.encode()
        start, rest = self.position(), memoryview(content)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            os.ftruncate(self._file.fileno(), start)
            self._file.seek(start)
            raise CheckpointError(
                f"{self.path}: could not append {len(records)} records, got {error.strerror}. "
                "Earlier records are intact. Make room, then resume the run."
            ) from error
        self._digest.update(content)

    def sha256(self) -> str:
        """SHA-256 of everything written so far, in hex digits."""
        return self._digest.hexdigest()

    def sync(self) -> None:
        """Force everything written so far to the disk itself."""
        self._may_write()
        os.fsync(self._file.fileno())

    def position(self) -> int:
        """Bytes written so far; always the end of a line."""
        return self._file.tell()

    def require(self, position: int) -> None:
        """Make sure that nothing before `position`, in bytes, is missing.

        Raises:
            CheckpointError: The file is shorter than that.
        """
        if (size := self.position()) < position:
            raise CheckpointError(
                f"{self.path}: has {size} bytes, expected at least {position} as when the resume "
                "point was made. Records are missing; restore the file from a copy."
            )

    def truncate(self, position: int) -> None:
        """Forget everything after `position`, in bytes, a value `position()` once gave.

        Raises:
            CheckpointError: See `require`.
        """
        self.require(position)
        os.ftruncate(self._file.fileno(), position)
        self._file.seek(position)
        self._digest = hashlib.sha256(read_regular(self.path))

    def close(self) -> None:
        """Close the file; nothing can be appended after."""
        self._file.close()


def _end_of_last_line(path: Path) -> int:
    """Bytes up to and including the last newline."""
    if not path.stat().st_size:
        return 0  # an empty file cannot be mapped
    with (
        open_regular(path) as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        return content.rfind(b"\n") + 1


def read_scores(path: Path) -> list[ScoreRow]:
    """Every row of a `scores.jsonl`, in order. See `read_records` for what is tolerated."""
    return [row for row in read_records(path) if isinstance(row, ScoreRow)]


def read_events(path: Path) -> list[Event]:
    """Every event of an `events.jsonl` or `metrics.jsonl`, in order. See `read_records`."""
    return [row for row in read_records(path) if not isinstance(row, ScoreRow)]


def read_records(path: Path) -> Iterator[ScoreRow | Event]:
    """Read records one by one; a last line without its newline, as a crash leaves it, is skipped.

    Raises:
        CheckpointError: The file is missing, or a complete line is not a record; names file:line.
    """
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            yield record_of_line(line, path, number)


def read_back(path: Path) -> Iterator[ScoreRow | Event]:
    """As `read_records`, from the last record to the first; what is not asked for is not read."""
    with _opened(path) as file:
        lines = _lines_back(file)
        next(lines)  # what follows the last newline
        for index, line in enumerate(lines):
            try:
                record = _record(line)
            except _DAMAGE as error:
                file.seek(0)
                number = sum(line.endswith(b"\n") for line in file) - index
                raise _damaged(line, path, number, error) from error
            yield record


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be read, got {error.strerror}. Give the folder of a run."
        ) from error


def _lines_back(file: BinaryIO) -> Iterator[bytes]:
    """What lies between newlines, from the end to the start."""
    position, rest = file.seek(0, os.SEEK_END), b""
    while position:
        size = min(max(_BLOCK, len(rest)), position)  # so that a long line is joined few times
        position = file.seek(position - size)
        rest, *lines = (file.read(size) + rest).split(b"\n")
        yield from reversed(lines)
    yield rest


def record_of_line(line: bytes, path: Path, number: int) -> ScoreRow | Event:
    """The record of one whole line of `path`, counted from 1.

    Raises:
        CheckpointError: It is not a record.
    """
    try:
        return _record(line)
    except _DAMAGE as error:
        raise _damaged(line, path, number, error) from error


def _damaged(line: bytes, path: Path, number: int, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}:{number}: not a record, got {line[:60]!r} ({error}). Expected one "
        "JSON object per line. The file was edited or damaged; restore it from a copy."
    )


def _record(line: bytes) -> ScoreRow | Event:
    """The record of a line; raises one of `_DAMAGE`.

    Scores, of which there are many, come from a quicker parser that shares equal texts; their
    numbers are bounded where they are checked. What it refuses is parsed again.
    """
    if not line.startswith(b'{"event"'):
        try:
            data = from_json(line, allow_inf_nan=False)
        except ValueError:
            data = None
        if isinstance(data, dict) and "event" not in data:
            return score_from_json(data)
    data = parse_json(line)
    if not isinstance(data, dict):
        raise TypeError("not an object")
    return event_from_json(data) if "event" in data else score_from_json(data)
