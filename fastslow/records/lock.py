"""Who writes to a run folder: one process at a time, and whether it still lives.

The lock is the system's: it goes with its process, however that ends. So a folder alone tells a run
that is working from one that was killed.
"""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, TypeAlias, get_args

from fastslow.core.errors import CheckpointError
from fastslow.core.files import disk_errors, read_json

State: TypeAlias = Literal["running", "finished", "failed", "interrupted"]
STATES: tuple[str, ...] = get_args(State)
"""What a run says of itself. One that was killed stays "running", but nobody holds its lock."""
LOCK_FILE = "lock"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the one writer of a run folder.

    Raises:
        CheckpointError: Another process is; names it.
    """
    with disk_errors(path, "the folder cannot be locked"):
        file: IO[str] = (path / LOCK_FILE).open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise CheckpointError(
                f"{path}: another process writes to this run, got lock of process "
                f"{file.read().strip() or '?'}. One writer at a time: wait for it or end it."
            ) from error
        with disk_errors(path, "the folder cannot be locked"):
            file.truncate(0)
            file.write(f"{os.getpid()} on {socket.gethostname()}\n")
            file.flush()
        yield


def read_state(path: Path) -> str:
    """State of the run in a folder, from the folder alone: one of `STATES`, or `died`.

    `running` has a living writer. `died` means that the run was killed, or the machine went down:
    it never came to say how it ended.

    Raises:
        OSError, ValueError: There is no run.json, or it is damaged.
    """
    said = str(read_json(path / "run.json")["state"])
    if _has_writer(path):
        return "running"
    return "died" if said == "running" else said


def _has_writer(path: Path) -> bool:
    try:
        with (path / LOCK_FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:  # a copy, or one that was made by hand
        return False
    except OSError:
        return True
    return False
