"""Who holds a folder, also across machines: a numbered card that its owner renews while it lives.

A system lock need not hold on a network file system, and may outlive the machine that took it. So
whoever takes a folder also makes its next card, which one process alone can (`O_EXCL`), and removes
the lower ones. Numbers are never used again. An owner that slept through its lease finds its card
gone before it writes; one that was faster than another leaves it with a number that is taken.

A heartbeat is the time of change of the card. It is compared with that of a file made next to it:
on a network file system both are the server's, so clocks of machines may differ.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import socket
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from fastslow.core.decode import shaped
from fastslow.core.errors import CheckpointError, LeaseError
from fastslow.core.files import (
    append_to,
    disk_errors,
    make_folder,
    open_regular,
    parse_json,
    read_regular,
)
from fastslow.core.processes import start_of, this_machine
from fastslow.core.text import visible

LEASE_FOLDER = "lease"
LEASE_S = 60.0
"""Seconds without a heartbeat after which an owner on another machine counts as gone. Source: ours,
twelve heartbeats, so that a busy machine or server loses no run."""
BEAT_S = 5.0
"""Between two heartbeats."""
RELEASED = b"released\n"
"""Last line of a card whose owner has done with the folder."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that a card names."""

    host: str
    pid: int
    machine: str
    """See `this_machine`."""
    start: str | None
    """When the process started, as the system counts; None where it does not say."""
    token: str
    """Random, of this lease alone."""
    is_locked: bool
    """Whether it holds the system lock of the folder as well."""
    lease_s: float
    """Seconds without a heartbeat after which it counts as gone."""

    @property
    def is_here(self) -> bool:
        """Whether this machine can tell if the process lives."""
        return self.machine == this_machine()

    @property
    def is_gone(self) -> bool:
        """Whether it has ended, of a process that is here; another may have its number by now."""
        return self.start is not None and start_of(self.pid) != self.start

    def __str__(self) -> str:
        return visible(f"process {self.pid} on {self.host}")


@dataclass(frozen=True, slots=True)
class Card:
    """The newest card of a folder, as it was read."""

    path: Path
    owner: Owner | None
    """None where the card is damaged, or just being written."""
    beat: float
    """Time of the last heartbeat, by the clock of the file system."""
    is_released: bool

    @property
    def number(self) -> int:
        """Of the card, from 1."""
        return int(self.path.name)

    @property
    def is_expired(self) -> bool:
        """Whether the owner has missed its heartbeats."""
        return clock(self.path.parent) - self.beat > (self.owner.lease_s if self.owner else LEASE_S)


class Lease:
    """A folder held by this process until `release`, renewed by a thread.

    Args:
        path: The card, which is there.
        content: What it holds.
    """

    def __init__(self, path: Path, content: bytes) -> None:
        self._path, self._content = path, content
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()

    def require(self) -> None:
        """Make sure that nobody took the folder before something is written to it.

        After `release` there is nothing to make sure of.

        Raises:
            LeaseError: Another process has taken it over.
        """
        if self._end.is_set():
            return
        folder = self._path.parent.parent
        with disk_errors(folder, "cannot be seen to be still held"):
            # opening the card asks the server of a network file system; its name may be remembered
            try:
                content = read_regular(self._path)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ESTALE):
                    raise
                content = b""
        if content == self._content:
            return
        card = newest(folder)
        raise LeaseError(
            f"{folder}: another process writes to this run now, got lease of "
            f"{(card and card.owner) or 'nobody'}. This one did not renew its own in time, and has "
            "written nothing since. Leave the run to the other, or end that and resume it."
        )

    def release(self) -> None:
        """Let others have the folder at once."""
        # lost, or the disk is gone: then it expires
        with contextlib.suppress(OSError, CheckpointError):
            self.require()
            with append_to(self._path) as card:
                card.write(RELEASED)
        self._end.set()
        self._thread.join(BEAT_S)

    def _beat(self) -> None:
        while not self._end.wait(BEAT_S):
            with contextlib.suppress(OSError):  # the next one may come through
                os.utime(self._path, follow_symlinks=False)


def claim(folder: Path, number: int, *, is_locked: bool) -> Lease | None:
    """Take a folder with the card of this number; None if another process was faster.

    Args:
        folder: Nobody who lives holds it.
        number: One more than that of the newest card when that was seen.
        is_locked: Whether this process holds the system lock of the folder.

    Raises:
        OSError: The disk refused.
    """
    place = make_folder(folder, LEASE_FOLDER)
    pid, token = os.getpid(), secrets.token_hex(16)
    host, machine = socket.gethostname(), this_machine()
    owner = Owner(host, pid, machine, start_of(pid), token, is_locked, LEASE_S)
    content = json.dumps(asdict(owner)).encode() + b"\n"
    path = place / f"{number:06d}"
    try:
        file = path.open("xb", buffering=0)
    except FileExistsError:
        return None
    with file:
        file.write(content)
    numbers = _numbers(place)
    if max(numbers) > number:  # ours was made after an old look, and removed by its successors
        path.unlink(missing_ok=True)
        return None
    for lower in numbers:
        if lower < number:
            (place / f"{lower:06d}").unlink(missing_ok=True)
    return Lease(path, content)


def newest(folder: Path) -> Card | None:
    """The card with the highest number; None where there is none, as in folders of older versions.

    Raises:
        OSError: It cannot be read.
    """
    seen: Path | None = None
    while numbers := _numbers(folder / LEASE_FOLDER):
        path = folder / LEASE_FOLDER / f"{max(numbers):06d}"
        try:
            with open_regular(path) as file:
                beat, content = os.fstat(file.fileno()).st_mtime, file.read()
        except FileNotFoundError:  # its successor has just removed it
            if path == seen:
                raise
            seen = path
            continue
        text, end, rest = content.partition(b"\n")
        try:
            owner = shaped(Owner, parse_json(text)) if end else None
        except ValueError:
            owner = None
        return Card(path, owner, beat, rest == RELEASED)
    return None


def _numbers(place: Path) -> list[int]:
    try:
        names = [path.name for path in place.iterdir()]
    except FileNotFoundError:
        return []
    return [int(name) for name in names if re.fullmatch(r"0*[1-9][0-9]{0,17}", name)]


def clock(folder: Path) -> float:
    """Seconds since 1970 by the clock that dates files in a folder; ours where we may not write."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()
