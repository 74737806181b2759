"""Who writes to a run folder: one process at a time, and whether it still lives.

The lock is the system's: it goes with its process, however that ends. So a folder alone tells a run
that is working from one that was killed.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from filelock import FileLock, Timeout

from fastslow.core.errors import CheckpointError
from fastslow.core.files import append_to, disk_errors, read_json

State: TypeAlias = Literal["running", "finished", "failed", "interrupted"]
STATES: tuple[str, ...] = get_args(State)
"""The state of a run in its run.json. One that was killed stays "running", but nobody holds its
lock."""
LOCK_FILE = "lock"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the one writer of a run folder.

    Raises:
        CheckpointError: Another process is; names it.
    """
    file = path / LOCK_FILE
    lock = FileLock(file)  # follows no link
    with disk_errors(path, "the folder cannot be locked"):
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            owner = file.read_text(errors="replace").strip() or "?"
            raise CheckpointError(
                f"{path}: another process writes to this run, got lock of process {owner}. One "
                "writer at a time: wait for it or end it."
            ) from error
    try:
        with disk_errors(path, "the folder cannot be locked"), append_to(file) as card:
            card.write(f"{os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        lock.release()


def read_state(path: Path) -> str:
    """State of the run in a folder, from the folder alone: one of `STATES`, or `died`.

    `running` has a living writer. `died` means that the run was killed, or the machine went down:
    it never came to say how it ended.

    Raises:
        OSError, ValueError: There is no run.json, or it is damaged.
    """
    state = str(read_json(path / "run.json")["state"])
    try:
        if os.path.lexists(path / LOCK_FILE):  # else it is a copy
            with FileLock(path / LOCK_FILE, timeout=0):
                pass
    except Timeout:
        return "running"
    except OSError:  # we may not open the lock: run.json is all there is to go by
        return state
    return "died" if state == "running" else state
