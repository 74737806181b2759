"""Reading files that others may have made: regular ones only, and JSON without surprises.

A name in a data, run or model folder can be a pipe that never ends or a device, and JSON can hold
numbers that no file should. Both become errors that readers of files expect anyway.
"""

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from fastslow.core.errors import CheckpointError
from fastslow.core.text import shorten
from fastslow.core.types import Json


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading.

    Raises:
        OSError: It is not there, not readable, or a pipe, device or folder.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as err:  # a NUL character or half a surrogate pair
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from err
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def is_file(path: Path) -> bool:
    """Whether there is a file, or a link to one; a name too long for any is none."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder, or a link to one; a name too long for any is none."""
    try:
        return path.is_dir()
    except OSError:
        return False


def read_regular(path: Path) -> bytes:
    """The content of a file; see `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def parse_json(text: str | bytes) -> Any:
    """What a JSON text holds.

    Raises:
        ValueError: It is no JSON, holds NaN or a number too large, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite, parse_int=_whole)
    except RecursionError as err:
        raise ValueError("nested too deeply") from err


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: See `open_regular`.
        ValueError: See `parse_json`.
    """
    return parse_json(read_regular(path))


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON")


def _whole(text: str) -> int:
    if len(text) > 20 or abs(number := int(text)) >= 2**64:
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


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
