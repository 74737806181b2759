"""Who writes to a run folder: one process at a time, and whether it still lives.

Two things say so. The system's lock goes with its process, however that ends: on the machine of the
writer a folder alone tells a run that is working from one that was killed. A lease tells it to
other machines, where that lock may not hold.
"""

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from filelock import FileLock, Timeout

from fastslow.core.errors import CheckpointError
from fastslow.core.files import disk_errors, read_json
from fastslow.records.lease import LEASE_S, Card, Lease, claim, newest

State: TypeAlias = Literal["running", "finished", "failed", "interrupted"]
STATES: tuple[str, ...] = get_args(State)
"""The state of a run in its run.json. One that was killed stays "running", but nobody holds its
folder."""
LOCK_FILE = "lock"
PATIENCE_S = 0.2
"""How long a writer waits for those who only look whether the lock is free."""
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What file systems without locks answer."""
SystemLock: TypeAlias = Literal["free", "held", "unknown"]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[Lease]:
    """Be the one writer of a run folder, as long as the lease given holds.

    Raises:
        CheckpointError: Another process is; names it.
    """
    lock = _file_lock(path)
    try:
        with disk_errors(path, "the folder cannot be locked"):
            lease = _take(path, lock)
        try:
            yield lease
        finally:
            lease.release()
    finally:
        lock.release()


def _take(path: Path, lock: FileLock) -> Lease:
    """The lease on a folder that nobody holds, with the system lock where that can be had."""
    system = _acquire(lock, PATIENCE_S)
    card = newest(path)
    if not is_held(card, system):
        number = card.number + 1 if card else 1
        if lease := claim(path, number, is_locked=lock.is_locked):
            return lease
        card = newest(path)
    raise CheckpointError(
        f"{path}: another process writes to this run, got lock of "
        f"{(card and card.owner) or 'process ?'}. One writer at a time: wait for it or end it."
    )


def is_held(card: Card | None, system: SystemLock) -> bool:
    """Whether a living process holds a folder, by its newest card and its system lock.

    Of a process of this machine the system knows; of any other its heartbeats tell.
    """
    if card is None or card.is_released:
        return system == "held"
    owner = card.owner
    if owner and owner.is_here and owner.is_locked and system != "unknown":
        return system == "held"
    if owner and owner.is_here and owner.is_gone:
        return False
    return not card.is_expired  # a system lock of a machine that is gone may stay for ever


def _file_lock(path: Path) -> FileLock:
    return FileLock(path / LOCK_FILE, fallback_to_soft=False)  # follows no link


def _acquire(lock: FileLock, timeout: float) -> SystemLock:
    """Try to get the lock: it was free, is held, or the file system has none."""
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        return "held"
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return "unknown"
    return "free"


def read_state(path: Path, written: object = None) -> str:
    """State of the run in a folder, from the folder alone: one of `STATES`, or `died`.

    `running` has a living writer. `died` means that the run was killed, or the machine went down:
    it never came to say how it ended. `written` is the state in its run.json, if that was read.

    Raises:
        OSError, ValueError: There is no run.json, or it is damaged.
    """
    state = _written_state(path) if written is None else _known(written)
    lock = _file_lock(path)
    system: SystemLock = "free"
    try:
        if os.path.lexists(path / LOCK_FILE):  # else it is a copy
            system = _acquire(lock, 0)
    except OSError:  # we may not open it
        system = "unknown"
    finally:
        lock.release()
    card = newest(path)
    if card is None and system == "unknown":
        return state  # all there is to go by
    if is_held(card, system):
        return "running"
    return "died" if state == "running" else state


def _written_state(path: Path) -> str:
    card = read_json(path / "run.json")
    return _known(card.get("state") if isinstance(card, dict) else None)


def _known(state: object) -> str:
    if state not in STATES:
        raise ValueError(f"run.json: state: not one of {', '.join(STATES)}")
    return str(state)


def watched_state(path: Path) -> str:
    """As `read_state`, for those who only watch: no lock is tried and nothing is written.

    Of a writer on this machine its process tells whether it lives; of another machine its
    heartbeats do, by our own clock. A folder of a version without either says what it says.

    Raises:
        OSError, ValueError: There is no run.json, or it is damaged.
    """
    state, card = _written_state(path), newest(path)
    if card is None:
        is_copy = not os.path.lexists(path / LOCK_FILE)
        return "died" if is_copy and state == "running" else state
    owner = card.owner
    if card.is_released:
        is_live = False
    elif owner is not None and owner.is_here and owner.start is not None:
        is_live = not owner.is_gone
    else:
        is_live = time.time() - card.beat <= (owner.lease_s if owner else LEASE_S)
    if is_live:
        return "running"
    return "died" if state == "running" else state
