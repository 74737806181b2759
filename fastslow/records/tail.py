"""Record files followed while a run writes them: each look reads what has come since the last.

A resume cuts a file back to its resume point and writes on from there, so a file that is as long as
before may hold other records. What was read last is therefore looked at again.
"""

import io
from pathlib import Path

from fastslow.core.files import open_regular
from fastslow.records.events import Event, ScoreRow
from fastslow.records.jsonl import record_of_line

_CHECKED = 4096
"""Bytes before the position that must be what they were."""
_PIECE = 1 << 24
"""Bytes read at once."""


class RecordTail:
    """The records of one file; nothing is written, locked or kept open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._forget()

    def _forget(self) -> None:
        self.records: list[ScoreRow | Event] = []
        """All records of whole lines, as of the last `look`."""
        self._position, self._last = 0, b""

    def look(self) -> bool:
        """Read on; whether `records` changed. A file that is not there yet has none.

        Raises:
            CheckpointError: A complete line is not a record; names file:line.
            OSError: It cannot be read.
        """
        num_before, position = len(self.records), self._position
        try:
            with open_regular(self._path) as file:
                file.seek(max(0, self._position - len(self._last)))
                is_same = file.read(len(self._last)) == self._last
                if not is_same:
                    self._forget()
                    file.seek(0)
                while piece := file.read(_PIECE):
                    lines, end, rest = piece.rpartition(b"\n")
                    if not end and len(piece) == _PIECE:
                        raise OSError(f"{self._path}: a line of more than {_PIECE:,} bytes")
                    self._take(lines + end)
                    if len(piece) < _PIECE:
                        break
                    file.seek(-len(rest), 1)
        except FileNotFoundError:
            is_same = not self.records
            self._forget()
        return not is_same or (num_before, position) != (len(self.records), self._position)

    def _take(self, lines: bytes) -> None:
        """Add the records of whole lines."""
        numbered = enumerate(io.BytesIO(lines), start=len(self.records) + 1)
        records = [record_of_line(line, self._path, number) for number, line in numbered]
        self.records += records
        self._position += len(lines)
        self._last = (self._last + lines)[-_CHECKED:]
