"""Reading files that others may have made, and writing files and folders whole or not at all.

A name in a data, run or model folder can be a pipe that never ends, a device or a link to a file
elsewhere, and JSON can hold numbers that no file should. Reading makes errors of them that readers
of files expect anyway; writing replaces a link or refuses it, and never writes through one.
"""

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from fastslow.core.errors import CheckpointError
from fastslow.core.processes import start_of, this_machine
from fastslow.core.text import shorten
from fastslow.core.types import Json

_NO_LINK, _NO_WAIT, _CLOSED, _BYTES = (
    getattr(os, f"O_{name}", 0) for name in ("NOFOLLOW", "NONBLOCK", "CLOEXEC", "BINARY")
)
"""Flags of `os.open` that some systems lack: follow no link, wait for no pipe, close in children,
and on Windows leave line ends alone."""
_LARGE, _LEAST_ROOM = 1 << 26, 1000
"""Bytes of a file from which on it must take up room: at least one for so many that it claims.
Source: ours; records that a file system compresses take more than a twentieth."""


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading.

    Raises:
        OSError: It is not there, not readable, or a pipe, device or folder; or it claims to be
            huge where almost nothing of it is there, and reading it would never end.
    """
    try:
        handle = os.open(path, os.O_RDONLY | _NO_WAIT | _CLOSED | _BYTES)
    except ValueError as err:  # a NUL character or half a surrogate pair
        raise OSError(errno.EINVAL, "no file can have this name", str(path)) from err
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        room = 512 * getattr(status, "st_blocks", status.st_size)
        if status.st_size > max(_LARGE, _LEAST_ROOM * room):
            raise OSError(errno.EFBIG, f"{status.st_size:,} bytes with nothing in them", str(path))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def is_file(path: Path) -> bool:
    """Whether there is a file, or a link to one; False for a name too long for any."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a folder, or a link to one; False for a name too long for any."""
    try:
        return path.is_dir()
    except OSError:
        return False


def read_regular(path: Path) -> bytes:
    """The content of a file; see `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def plain_name(name: object) -> str:
    """The name of a file or folder, as a record has it; `ValueError` for a path or no text."""
    if not isinstance(name, str) or name in (".", "..") or Path(name).name != name:
        raise ValueError(f"{shorten(repr(name), 60)} is not a plain name")
    return name


def parse_json(text: str | bytes) -> Any:
    """The content of a JSON text.

    Raises:
        ValueError: It is not JSON, holds NaN or a number too large, or is nested too deeply.
    """
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite, parse_int=_whole)
    except RecursionError as err:
        raise ValueError("nested too deeply") from err


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: See `open_regular`.
        ValueError: See `parse_json`.
    """
    return parse_json(read_regular(path))


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is not a number of JSON")


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
UNFINISHED = ".tmp-"
"""Begins the names of files and folders that are still being written."""


def unfinished(parent: Path) -> Path:
    """A name in the folder `parent` for what is being written, which nobody can foresee.

    What processes of this machine left there that were killed is removed first. The name says whose
    it is, where the system tells one process from the next: so those at work keep theirs.
    """
    machine = hashlib.sha256(this_machine().encode()).hexdigest()[:12]
    for path in parent.glob(f"{UNFINISHED}{machine}-*-*-*"):
        pid, start = path.name.split("-")[2:4]
        if pid.isdecimal() and start_of(int(pid)) != start:
            with contextlib.suppress(OSError):  # another process removes it too
                remove(path)
    start_here = start_of(os.getpid())
    owner = "" if start_here is None else f"{machine}-{os.getpid()}-{start_here}-"
    return parent / f"{UNFINISHED}{owner}{secrets.token_hex(8)}"


@contextlib.contextmanager
def disk_errors(path: Path, failure: str, then: str = "resume or start again") -> Iterator[None]:
    """Say where and what failed when the disk refuses something within it.

    `failure` is a clause, e.g. `the resume point could not be saved`; `then` what to do after.

    Raises:
        CheckpointError: The disk is full, read-only, gone.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors has errors of its own for both
        words = error.strerror if isinstance(error, OSError) else None
        raise CheckpointError(
            f"{path}: {failure}, got {words or error}. "
            f"Check free space and permissions, then {then}."
        ) from error


@contextlib.contextmanager
def damage_errors(
    path: Path, failure: str, then: str = "Restore it from a copy."
) -> Iterator[None]:
    """Say where and what is wrong when what is read within is not what it should be.

    `failure` is a clause, e.g. `not a seal`; `then` says what to do.

    Raises:
        CheckpointError: It is missing, cannot be read, or holds something else.
    """
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        words = shorten(str(error), 200)
        raise CheckpointError(f"{path}: {failure}, got {words}. {then}") from error


def write_file(folder: Path, name: str, content: str | bytes, in_place: bool = False) -> Path:
    """Replace the file `name` in `folder`, flushed to the disk before the old one is let go.

    A link at the name itself is replaced; folders are made as by `make_folder`. Text is written as
    UTF-8. `in_place`: write over the old content where a full disk has no room for both.

    Raises:
        OSError: The disk refused, or a folder in `name` is a link; the old file stands.
    """
    path = folder / name
    data = content.encode() if isinstance(content, str) else content
    parent = make_folder(folder, Path(name).parent)
    temporary = unfinished(parent)
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK | _BYTES, 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if not in_place or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        with os.fdopen(os.open(path, os.O_WRONLY | _NO_LINK | _BYTES), "wb") as file:
            file.write(data)
            file.truncate()
    return path


def make_folder(folder: Path, name: str | Path) -> Path:
    """Make the folder with the path `name` under `folder`, unless it is there.

    `folder` is made too; links that lead to it are followed.

    Raises:
        OSError: A part of `name` is a link or a file, or cannot be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in Path(name).parts:
        folder = folder / part
        if folder.is_symlink():
            raise OSError(errno.ELOOP, f"{folder} is a link to another place")
        folder.mkdir(exist_ok=True)
    return folder


def append_to(path: Path) -> io.FileIO:
    """Open a file for reading and appending, unbuffered; made if it is not there.

    Raises:
        OSError: It is a link, or cannot be opened.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | _CLOSED | _NO_LINK | _BYTES
    return io.FileIO(os.open(path, flags, 0o666), "r+")


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all in it; nothing where there is nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def replace_folder(folder: Path, name: str, write: Callable[[Path], None]) -> None:
    """Replace the folder `name` under `folder` by what `write` puts into the folder it is given.

    When that fails, the new content is removed again, so that a full disk has room for an error,
    and the old folder stays.

    Raises:
        OSError: The disk refused, or a folder in `name` is a link; one at its end is replaced.
    """
    path = folder / name
    parent = make_folder(folder, Path(name).parent)
    staging, old = unfinished(parent), unfinished(parent)
    try:
        staging.mkdir()
        write(staging)
        for part in [*staging.rglob("*"), staging]:
            sync(part)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    if os.path.lexists(path):
        path.rename(old)  # at once, unlike removing it: a kill in between would leave neither
    staging.rename(path)
    sync(parent)
    remove(old)


def write_checksums(folder: Path) -> None:
    """Write down the SHA-256 of every file under `folder`, in it."""
    write_file(folder, CHECKSUMS, json.dumps(checksums(folder), indent=2) + "\n")


def damage(folder: Path) -> str | None:
    """The first difference from what `write_checksums` recorded, in a few words; None if none."""
    try:
        expected = read_json(folder / CHECKSUMS)
        sums = checksums(folder)
        if not isinstance(expected, dict):
            raise ValueError("not an object of names and sums")
    except (OSError, ValueError) as error:
        return f"{CHECKSUMS} cannot be read: {shorten(str(error), 200)}"
    for name in sorted({*expected, *sums}):
        if expected.get(name) != sums.get(name):
            return f"{name} is {'missing' if name not in sums else 'not what was written'}"
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


def sync(path: Path) -> None:
    """Force a file, or the list of files of a folder, to the disk."""
    if os.name == "nt":
        return  # Windows opens no folder, and flushes only what is open for writing
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
