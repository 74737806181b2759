"""Reading files that others may have made: regular ones only, and JSON without surprises.

A name in a data, run or model folder can be a pipe that never ends or a device, and JSON can hold
numbers that no file should. Both become errors that readers of files expect anyway.
"""

import errno
import io
import json
import math
import os
import stat
from pathlib import Path
from typing import Any


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
