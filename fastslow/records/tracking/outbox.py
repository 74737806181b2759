"""What is to be told to a tracker: kept in a file first, delivered when the tracker takes it.

One JSON line per message, appended and never taken back, beside the number of lines delivered. A
message that was delivered just before a crash may be delivered again, so messages carry their time
and are such that twice is once. Called by `tracker.py`.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from fastslow.core.types import Json

Message: TypeAlias = dict[str, Json]
TIMELESS = ("metrics", "params", "prompt")
"""Kinds of which the same message is not kept twice: a resumed run says again what it had said
since its last resume point."""


class Outbox:
    """The messages of one run.

    Args:
        path: File of the messages.
        ids: JSON file of the number delivered, and of what the tracker called things.
    """

    def __init__(self, path: Path, ids: Path) -> None:
        self._path, self._ids_path = path, ids
        self._messages: list[Message] = []
        self._said: set[str] = set()
        self.ids: dict[str, Any] = {}
        """Names that the tracker gave, by our own; kept by `save`."""

    def open(self) -> None:
        """Read what an earlier process left; an unfinished last line is cut off.

        Raises:
            OSError, ValueError: Something cannot be read; what could be read counts.
        """
        damaged = []
        if self._path.exists():
            whole, _, _ = self._path.read_bytes().rpartition(b"\n")
            self._path.write_bytes(whole + b"\n" if whole else b"")
            for line in whole.splitlines():
                try:
                    self._take(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    damaged.append(self._path)
        if self._ids_path.exists():
            try:
                self.ids = dict(json.loads(self._ids_path.read_bytes()))
            except (ValueError, TypeError):
                damaged.append(self._ids_path)
        if self.num_pending < 0:
            self.ids["delivered"] = len(self._messages)
        if damaged:
            raise ValueError(f"{damaged[0]} is damaged")

    def add(self, message: Mapping[str, Json]) -> None:
        """Keep a message, unless it was said before.

        Raises:
            OSError: The disk refused; it is kept in memory.
        """
        made = dict(message)
        if self._take(made):
            with self._path.open("ab") as file:
                file.write(json.dumps(made).encode() + b"\n")

    def pending(self) -> Iterator[Message]:
        """Messages not delivered yet, in order; the next one only once this one was marked."""
        while self.num_delivered < len(self._messages):
            yield self._messages[self.num_delivered]

    @property
    def num_delivered(self) -> int:
        """Messages delivered or refused for good."""
        return int(self.ids.get("delivered", 0))

    @property
    def num_pending(self) -> int:
        """Messages that wait."""
        return len(self._messages) - self.num_delivered

    def left_open(self) -> list[str]:
        """Runs that were begun and not ended: a kill after a stage's resume point leaves one."""
        last = {str(m["key"]): m["kind"] for m in self._messages if m["kind"] in ("begin", "end")}
        return [key for key, kind in last.items() if kind == "begin"]

    def mark(self) -> None:
        """Count the first pending message as delivered.

        Raises:
            OSError: The disk refused; another process would deliver it once more.
        """
        self.ids["delivered"] = self.num_delivered + 1
        self.save()

    def start_over(self) -> None:
        """Deliver everything again, as to a tracker that lost it all."""
        self.ids = {}

    def save(self) -> None:
        """Write the names and the number delivered.

        Raises:
            OSError: The disk refused.
        """
        beside = self._ids_path.with_name(self._ids_path.name + ".tmp")
        beside.write_text(json.dumps(self.ids, indent=2) + "\n")
        beside.replace(self._ids_path)

    def _take(self, message: Message) -> bool:
        """Whether the message is new."""
        if message["kind"] in TIMELESS:
            passing = ("time", "params")  # a resumed run has the parameters it began with
            kept = {name: value for name, value in message.items() if name not in passing}
            said = json.dumps(kept, sort_keys=True)
            if said in self._said:
                return False
            self._said.add(said)
        self._messages.append(message)
        return True
