"""The files or hub splits that a task's `data` names, as tables.

Runs no code that comes with data.
"""

import difflib
import re
from pathlib import Path
from typing import Any

from fastslow.core.errors import TaskError, UnreachableDataError, nearest
from fastslow.core.text import shorten
from fastslow.task.table_files import FORMATS, UNPACKERS, Row, Table, read_table

SPLITS = ("train", "validation", "test")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
_OTHER_SUFFIXES = (".xlsx", ".xls", ".ods", ".txt", ".zip", ".tar", ".arrow", ".feather")
_FILE_SUFFIXES = {*FORMATS, *UNPACKERS, *_OTHER_SUFFIXES}
"""Names that end so are files, never the id of a hub dataset."""


def read_splits(
    data: str, subset: str | None = None, revision: str | None = None
) -> dict[str, Table]:
    """Read the tables that `data` names.

    Args:
        data: A folder with train, and perhaps validation and test, each one file of a format of
            `table_files`, its name in any case; or one such file, taken as train; or the id of a
            hub dataset.
        subset: A sub-folder of the folder, or a configuration of the hub dataset.
        revision: A commit, tag or branch of the hub dataset.

    Returns:
        Tables of `train`, and of `validation` and `test` where they exist, each with rows or with
        problems that its reader must refuse.

    Raises:
        UnreachableDataError: It is a hub dataset, and the hub does not answer.
        TaskError: Nothing is there.
    """
    try:
        return _read_path(data, subset, revision)
    except (OSError, RuntimeError, ValueError) as error:  # a name that is none, an unknown ~user
        raise TaskError(
            f"data: {shorten(data, 200)!r} cannot be read: {shorten(str(error), 200)}. Give a "
            "folder or file that can, or the id of a hub dataset."
        ) from error


def _read_path(data: str, subset: str | None, revision: str | None) -> dict[str, Table]:
    path = Path(data).expanduser()
    if not path.exists():
        if _HUB_ID.fullmatch(data) and path.suffix.lower() not in _FILE_SUFFIXES:
            return _read_hub(data, subset, revision)
        siblings = [child.name for child in path.parent.iterdir()] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f" Did you mean {str(path.with_name(close[0]))!r}?" if close else ""
        raise TaskError(
            f"data: no file or folder {shorten(data, 200)}, seen from {Path.cwd()}.{hint} Give "
            "one, or the id of a hub dataset."
        )
    if not path.is_dir():
        if subset is not None:
            raise TaskError(f"subset: got {subset!r}, but data is one file, {path}. Remove one.")
        return {"train": _table(path)}
    folder = path / subset if subset else path
    if not folder.is_dir():
        names = [child.name for child in path.iterdir() if child.is_dir()]
        raise TaskError(f"subset: no folder {subset!r} in {path}.{nearest(subset or '', names)}")
    files, notes = _split_files(folder)
    if "train" not in files:
        listed = ", ".join(sorted(child.name for child in folder.iterdir())[:12]) or "nothing"
        raise TaskError(
            f"data: no train file in {folder}, which holds {listed}. Expected train.jsonl, "
            "train.csv or train.parquet; to use a sub-folder, name it in subset."
        )
    tables = {split: _table(file) for split, file in files.items()}
    tables["train"].notes += notes
    return tables


def _split_files(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The file of each split, and a note on files of data that are none's.

    Raises:
        TaskError: Two files could be meant.
    """
    children = sorted(folder.iterdir())
    files = {}
    for split in SPLITS:
        endings = {f"{split}{kind}{packing}" for kind in FORMATS for packing in ("", *UNPACKERS)}
        present = [child for child in children if child.name.lower() in endings]
        if len(present) > 1:
            names = " and ".join(file.name for file in present)
            raise TaskError(
                f"{folder}: holds {names}. Which one is meant? Keep one file per split."
            )
        if present:
            files[split] = present[0]
    others = [
        child.name
        for child in children
        if child.suffix.lower() in _FILE_SUFFIXES - {".json"} and child not in files.values()
    ]
    notes = [f"{folder}: not read: {shorten(', '.join(others), 200)}."] if others else []
    return files, notes


def _table(path: Path) -> Table:
    """The table of a file; what keeps it from being read is a problem like others."""
    try:
        return read_table(path)
    except TaskError as error:
        return Table(problems=[str(error)])


def _read_hub(name: str, subset: str | None, revision: str | None) -> dict[str, Table]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        splits = load_dataset(name, subset, revision=revision)
    except Exception as error:  # of several libraries, by the way the connection fails
        has_answer = isinstance(error, DatasetsError | ValueError | RuntimeError)
        raise (TaskError if has_answer else UnreachableDataError)(
            f"data: {name!r} is not a file or folder here, and the hub gave no dataset of that id: "
            f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}. Check the "
            "id and the connection, or download it elsewhere and give the folder."
        ) from error
    if len(splits) == 1:  # some have but a test split, which is cut like a single file
        ((split, table),) = splits.items()
        return {"train": Table(_hub_rows(name, split, table))}
    if "train" not in splits:
        raise TaskError(f"data: {name!r} has no train split, only {', '.join(splits)}.")
    tables = {split: splits[split] for split in SPLITS if split in splits}
    return {split: Table(_hub_rows(name, split, table)) for split, table in tables.items()}


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
