"""Rows of JSONL, CSV and Parquet files and of hub datasets, each knowing where it stood.

Runs no code that comes with data.
"""

import csv
import io
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastslow.core.errors import TaskError, nearest
from fastslow.core.files import open_regular, parse_json
from fastslow.core.text import shorten

SUFFIXES = (".jsonl", ".csv", ".parquet")
SPLITS = ("train", "validation", "test")
MAX_LINE_BYTES = 10_000_000
"""Length a line of JSONL may have."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table."""

    where: str
    """File and line (JSONL, CSV) or row number from 1 (Parquet, hub), for messages."""
    values: Mapping[str, Any]
    """Column name to value."""

    def value(self, column: str, key: str) -> Any:
        """The value in `column`, which the parameter `key` names.

        Raises:
            TaskError: There is no such column; names where, and the nearest one.
        """
        if column not in self.values:
            names = [shorten(str(name), 60) for name in list(self.values)[:40]]
            raise TaskError(
                f"{self.where}: no column {shorten(column, 60)!r}.{nearest(column, names)} "
                f"Set {key}, or add the column."
            )
        return self.values[column]


def read_splits(data: str, subset: str | None = None) -> dict[str, list[Row]]:
    """Read the tables that `data` names.

    Args:
        data: A folder with train, and perhaps validation and test, each one .jsonl, .csv or
            .parquet file; or one such file, taken as train; or the id of a hub dataset.
        subset: A sub-folder of the folder, or a configuration of the hub dataset.

    Returns:
        Rows of `train`, and of `validation` and `test` where they exist; none is empty.

    Raises:
        TaskError: Nothing is there, a file cannot be read, or the hub cannot be reached.
    """
    try:
        return _read_path(data, subset)
    except (OSError, RuntimeError, ValueError) as error:  # a name that is none, an unknown ~user
        raise TaskError(
            f"data: {shorten(data, 200)!r} cannot be read: {shorten(str(error), 200)}. Give a "
            "folder or file that can, or the id of a hub dataset."
        ) from error


def _read_path(data: str, subset: str | None) -> dict[str, list[Row]]:
    path = Path(data).expanduser()
    if not path.exists():
        if _HUB_ID.fullmatch(data) and path.suffix not in SUFFIXES:
            return _read_hub(data, subset)
        raise TaskError(
            f"data: no file or folder {shorten(data, 200)}, seen from {Path.cwd()}. Give one, or "
            "the id of a hub dataset."
        )
    if not path.is_dir():
        if subset is not None:
            raise TaskError(f"subset: got {subset!r}, but data is one file, {path}. Remove one.")
        return {"train": read_table(path)}
    folder = path / subset if subset else path
    if not folder.is_dir():
        names = [child.name for child in path.iterdir() if child.is_dir()]
        raise TaskError(f"subset: no folder {subset!r} in {path}.{nearest(subset or '', names)}")
    files = {split: _split_file(folder, split) for split in SPLITS}
    if files["train"] is None:
        listed = ", ".join(sorted(child.name for child in folder.iterdir())[:12]) or "nothing"
        raise TaskError(
            f"data: no train file in {folder}, which holds {listed}. Expected train.jsonl, "
            "train.csv or train.parquet; to use a sub-folder, name it in subset."
        )
    return {split: read_table(file) for split, file in files.items() if file is not None}


def read_table(path: Path) -> list[Row]:
    """Read one .jsonl, .csv or .parquet file (UTF-8 where it is text).

    Raises:
        TaskError: The suffix is another, the file is empty, or a line cannot be read.
    """
    readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
    if path.suffix not in readers:
        raise TaskError(
            f"{path}: cannot read {path.suffix or 'no suffix'}. Known: .jsonl, .csv, .parquet."
        )
    try:
        rows = list(readers[path.suffix](path))
    except UnicodeDecodeError as error:
        raise TaskError(f"{path}: not UTF-8 at byte {error.start}. Convert the file.") from error
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror or error}.") from error
    if not rows:
        raise TaskError(f"{path}: holds no rows. Every split needs some.")
    return rows


def _split_file(folder: Path, split: str) -> Path | None:
    files = [folder / f"{split}{suffix}" for suffix in SUFFIXES]
    present = [file for file in files if os.path.lexists(file)]
    if len(present) > 1:
        names = " and ".join(file.name for file in present)
        raise TaskError(f"{folder}: holds {names}. Which one is meant? Keep one file per split.")
    return present[0] if present else None


def _jsonl(path: Path) -> Iterator[Row]:
    with open_regular(path) as file:
        for number in itertools.count(1):
            line = file.readline(MAX_LINE_BYTES + 1)
            where = f"{path}:{number}"
            if len(line) > MAX_LINE_BYTES:
                raise TaskError(f"{where}: longer than {MAX_LINE_BYTES} bytes. Cut the texts.")
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            if not line:
                return
            if text.strip():
                yield Row(where, _json_object(text, where))


def _json_object(text: str, where: str) -> dict[str, Any]:
    """One line of JSONL. Half a surrogate pair, which no tokenizer takes, is refused."""
    try:
        values = parse_json(text)
        for value in values.values() if isinstance(values, dict) else ():
            if isinstance(value, str):
                value.encode()
    except ValueError as error:
        problem = shorten(str(error), 120)
        if isinstance(error, json.JSONDecodeError):
            problem = f"{error.msg} at column {error.colno}"
        raise TaskError(
            f"{where}: not JSON: {problem}. Each line must be one JSON object."
        ) from error
    if not isinstance(values, dict):
        raise TaskError(f"{where}: expected a JSON object, got {type(values).__name__}.")
    return values


def _csv(path: Path) -> Iterator[Row]:
    with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for values in reader:
                where = f"{path}:{reader.line_num}"
                if None in values or None in values.values():
                    raise TaskError(
                        f"{where}: expected {len(reader.fieldnames or ())} fields as in the "
                        "header, got another number. Quote fields that hold commas."
                    )
                yield Row(where, values)
        except csv.Error as error:
            raise TaskError(f"{path}:{reader.reader.line_num}: not CSV: {error}.") from error


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet as parquet  # type: ignore[import-untyped]  # it ships no types
    from pyarrow.lib import ArrowException  # type: ignore[import-untyped]  # likewise

    try:
        with open_regular(path) as file:
            rows = parquet.read_table(file).to_pylist()
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        raise TaskError(f"{path}: not a Parquet file: {shorten(str(error), 200)}.") from error
    for number, values in enumerate(rows, start=1):
        yield Row(f"{path}:{number}", values)


def _read_hub(name: str, subset: str | None) -> dict[str, list[Row]]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        splits = load_dataset(name, subset)
    except (DatasetNotFoundError, OSError, RuntimeError, ValueError) as error:
        raise TaskError(
            f"data: {name!r} is not a file or folder here, and the hub gave no dataset of that id: "
            f"{type(error).__name__}: {str(error).strip().splitlines()[0]}. Check the id and the "
            "connection, or download it elsewhere and give the folder."
        ) from error
    if "train" not in splits:
        raise TaskError(f"data: {name!r} has no train split, only {', '.join(splits)}.")
    return {split: _hub_rows(name, split, splits[split]) for split in SPLITS if split in splits}


def _hub_rows(name: str, split: str, table: Any) -> list[Row]:
    """Rows of one hub split, with class numbers turned into class names (-1 into None)."""
    names = {column: getattr(feature, "names", None) for column, feature in table.features.items()}
    coded = {column: classes for column, classes in names.items() if classes}
    return [
        Row(
            f"{name} {split} row {number}",
            {
                column: _class_name(coded[column], value) if column in coded else value
                for column, value in values.items()
            },
        )
        for number, values in enumerate(table, start=1)
    ]


def _class_name(classes: list[str], code: int | None) -> str | None:
    return classes[code] if code is not None and code >= 0 else None
