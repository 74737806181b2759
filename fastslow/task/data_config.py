"""What tasks on files or hub datasets have in common: parameters, rows that count, splits."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import TypeAlias

from pydantic import Field, NonNegativeInt, PositiveInt

from fastslow.core.errors import MissingDataError, TaskError, nearest
from fastslow.core.types import Example
from fastslow.task.data_files import read_splits
from fastslow.task.definition import TaskConfig
from fastslow.task.labelled import Labelled
from fastslow.task.splits import Splits, balanced_order, content_id
from fastslow.task.table_files import Table

Value: TypeAlias = str | int | float | bool


class DataConfig(TaskConfig):
    """Parameters that every task on files or a hub dataset has."""

    data: str | None = None
    """Folder with train, validation, test files; one file; or a hub id. Null: the run's `data`.
    Files are JSONL, JSON, CSV, TSV or Parquet, packed (.gz, .zst, .bz2, .xz) or not."""
    subset: str | None = None
    """Sub-folder of the folder, or configuration of the hub dataset."""
    revision: str | None = None
    """Commit, tag or branch of a hub dataset, e.g. `refs/convert/parquet`; null: its default."""
    where: dict[str, Value | tuple[Value, ...]] = Field(default_factory=dict)
    """Rows that count: by column, the value or values that it must hold, e.g. `{level: [4, 5]}`;
    `a.b` is field b of column a. Without any, all do."""
    validation_frac: float = Field(0.1, gt=0, lt=0.5)
    """Share of train that becomes validation when there is no validation file."""
    test_frac: float = Field(0.2, gt=0, lt=0.5)
    """Share of train that becomes test when there is no test file."""
    max_train: PositiveInt | None = None
    """Train examples kept, answers in proportion; null keeps all."""
    max_validation: PositiveInt | None = None
    """Validation examples kept, answers in proportion; null keeps all."""
    max_test: PositiveInt | None = None
    """Test examples kept, answers in proportion; null keeps all."""
    split_seed: NonNegativeInt = 0
    """Seed of the choice of examples for a split."""

    @property
    def limits(self) -> dict[str, int | None]:
        """Examples kept, by split."""
        return {
            "train": self.max_train,
            "validation": self.max_validation,
            "test": self.max_test,
        }

    def tables(
        self, task: str, prepare: Callable[[dict[str, Table]], None] | None = None
    ) -> dict[str, Table]:
        """The tables that `data` names, those of their rows that count; see `read_splits`.

        `prepare` may change what was read before `where` is asked.

        Raises:
            MissingDataError: There is no `data`.
            TaskError: They cannot be read, or no row of a split counts.
        """
        if self.data is None:
            raise MissingDataError(
                f"task {task}: needs data, got none. Give a folder, a file or a hub id "
                "as data=... for the run, or as the task's params.data."
            )
        tables = read_splits(self.data, self.subset, self.revision)
        if prepare is not None:
            prepare(tables)
        for column, values in self.where.items():
            allowed = set(map(str, values if isinstance(values, tuple) else (values,)))
            for split, table in tables.items():
                _keep(table, split, column, allowed)
        return tables

    def carved(self, items: Mapping[str, Sequence[Labelled]]) -> dict[str, list[Labelled]]:
        """All three splits in balanced order, missing ones taken from train."""
        splits = {
            split: balanced_order(((item, item.label) for item in members), self.split_seed, split)
            for split, members in items.items()
        }
        size = len(splits["train"])
        for split, frac in (("test", self.test_frac), ("validation", self.validation_frac)):
            if split not in splits:
                count = max(1, round(frac * size))
                splits[split], splits["train"] = splits["train"][:count], splits["train"][count:]
        return splits

    def examples(
        self, splits: Mapping[str, Sequence[Labelled]], items: Mapping[str, Sequence[Labelled]]
    ) -> Splits:
        """Carved splits as examples, as many as are kept; `items` are all that there were.

        A text is the question and the label its answer; where it is from, whether it was cut, and
        how many `copies` of it are left out, is in the metadata.
        """
        copies = Counter(item.text for members in items.values() for item in members)
        return Splits(
            **{
                split: tuple(
                    Example(
                        id=content_id(item.text),
                        question=item.text,
                        answer=item.label,
                        metadata={
                            "source": PurePath(item.where).name,
                            "copies": copies[item.text] - 1,
                            "cut": item.is_cut,
                        },
                        cluster=item.cluster,
                    )
                    for item in members[: self.limits[split]]
                )
                for split, members in splits.items()
            }
        )


def _keep(table: Table, split: str, column: str, allowed: set[str]) -> None:
    """Leave in a table the rows that hold one of the allowed values in a column, and note it.

    Raises:
        TaskError: There is no such column, or no such row.
    """
    values = [str(row.value(column, "where")) for row in table.rows]
    rows = [row for row, value in zip(table.rows, values, strict=True) if value in allowed]
    if values and not rows:
        names = ", ".join(sorted(allowed))
        raise TaskError(
            f"where: no row of {split} has {names} in column {column!r}."
            f"{nearest(names, set(values))} Correct it."
        )
    if len(rows) < len(values):
        table.notes.append(f"{len(rows):,} of {len(values):,} rows of {split} count by {column}.")
    table.rows = rows
