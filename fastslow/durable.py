"""Files that are there whole or not at all, whatever happens while they are written.

Everything is written beside its place, flushed to the disk, and renamed. What the disk refuses
becomes an error that says where and why. Called by `rundir.py`.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from fastslow.errors import CheckpointError
from fastslow.files import open_regular, read_json
from fastslow.text import shorten
from fastslow.types import Json

CHECKSUMS = "checksums.json"
UNFINISHED = "tmp-"
"""What names of folders begin with that are still being written."""


@contextlib.contextmanager
def disk_errors(path: Path, what: str) -> Iterator[None]:
    """Say where and what failed when the disk refuses something within it.

    Args:
        path: Where.
        what: The first half of a sentence, e.g. `the resume point could not be saved`.

    Raises:
        CheckpointError: The disk is full, read-only, gone.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors has errors of its own for both
        words = error.strerror if isinstance(error, OSError) else None
        raise CheckpointError(
            f"{path}: {what}, got {words or error}. "
            "Check free space and permissions, then resume or start again."
        ) from error


def replace_text(path: Path, text: str, in_place: bool = False) -> None:
    """Replace `path` by `text`, flushed to the disk before the old content is let go.

    Args:
        path: The file.
        text: What it will hold.
        in_place: Whether to write over the old content where a full disk has no room beside it.
    """
    beside = path.with_name(path.name + ".tmp")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        if not in_place or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _write_over(path, text.encode())


def _write_over(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


def replace_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Replace the folder `path` by what `write` puts into the folder it is given.

    When that fails, what was written is removed again, so that a full disk has room for an error,
    and the old folder stays.
    """
    beside = path.with_name(UNFINISHED + path.name)
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        write(beside)
        _sync_tree(beside)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    if path.exists():
        shutil.rmtree(path)
    beside.rename(path)
    _sync(path.parent)


def write_checksums(folder: Path) -> None:
    """Write down the SHA-256 of every file under `folder`, in it."""
    replace_text(folder / CHECKSUMS, json.dumps(checksums(folder), indent=2) + "\n")


def damage(folder: Path) -> str | None:
    """What is not as `write_checksums` found it, in a few words; None if nothing."""
    try:
        expected = read_json(folder / CHECKSUMS)
        found = checksums(folder)
        if not isinstance(expected, dict):
            raise ValueError("no object of names and sums")
    except (OSError, ValueError) as error:
        return f"{CHECKSUMS} cannot be read: {shorten(str(error), 200)}"
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            return f"{name} is {'missing' if name not in found else 'not what was written'}"
    return None


def checksums(folder: Path) -> dict[str, Json]:
    """SHA-256 of every file under `folder`, by path relative to it."""
    sums: dict[str, Json] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_dir() and path.name != CHECKSUMS:
            with open_regular(path) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            sums[path.relative_to(folder).as_posix()] = digest
    return sums


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync(path)
