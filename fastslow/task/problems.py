"""What is wrong with rows of tables: collected over all, each with its place, raised at once."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from fastslow.core.errors import TaskError
from fastslow.core.text import shorten
from fastslow.task.table_files import Row, Table

Item = TypeVar("Item")

MAX_PROBLEMS = 20
"""Problems that one error names; more are counted."""
_PLACES = 5


class Places(defaultdict[str, list[str]]):
    """Sentences on rows, each with the places of all rows that it is true of."""

    def __init__(self) -> None:
        super().__init__(list)

    def lines(self) -> Iterator[str]:
        """One line a sentence, which begins with the first place and ends with others."""
        for sentence, wheres in self.items():
            others = f" Also at {places(wheres[1:])}." if wheres[1:] else ""
            yield f"{wheres[0]}: {sentence}{others}"


def places(wheres: Sequence[str]) -> str:
    """The first places in a few words, each file named once, and how many more there are."""
    words, last = [], ""
    for where in wheres[:_PLACES]:
        file = where.rstrip("0123456789")
        words.append(where[len(file) :] if file == last else where)
        last = file
    rest = len(wheres) - _PLACES
    return ", ".join(words) + (f" and {rest:,} more" if rest > 0 else "")


def read_items(
    tables: Mapping[str, Table], item_of: Callable[[Row], Item]
) -> tuple[dict[str, list[Item]], list[str]]:
    """What `item_of` makes of every row of every split, and notes on how the files were read.

    `item_of` raises TaskError for a row that cannot be used, its place first.

    Raises:
        TaskError: Names every problem of every table with its place, `MAX_PROBLEMS` at most.
    """
    problems = [problem for table in tables.values() for problem in table.problems]
    notes = [note for table in tables.values() for note in table.notes]
    items: dict[str, list[Item]] = {}
    for split, table in tables.items():
        rows, items[split] = Places(), []
        for row in table.rows:
            try:
                items[split].append(item_of(row))
            except TaskError as error:
                rows[str(error).removeprefix(f"{row.where}: ")].append(row.where)
        problems += rows.lines()
    require_none(problems, notes)
    return items, notes


def text_of(row: Row, column: str, key: str | None = None) -> str:
    """The text in a column, or a number as it is written; the parameter `key` names the column.

    Raises:
        TaskError: There is none.
    """
    value = row.value(column, key or "data")
    text = str(value).strip() if isinstance(value, str | int | float) else ""
    if not text or isinstance(value, bool):
        advice = f", or name another {key}" if key else ""
        raise TaskError(
            f"{row.where}: column {column!r} should hold a text, got {quoted(value)}. Remove the "
            f"row{advice}."
        )
    return text


def require_none(problems: Sequence[str], notes: Sequence[str]) -> None:
    """Raise what is wrong with tables, with the notes on them.

    Raises:
        TaskError: There are problems; names `MAX_PROBLEMS` at most.
    """
    if problems:
        rest = len(problems) - MAX_PROBLEMS
        more = [f"... and {rest:,} problems more."] if rest > 0 else []
        lines = [*problems[:MAX_PROBLEMS], *more, *(f"note: {note}" for note in notes)]
        raise TaskError("\n".join(lines))


def quoted(value: object) -> str:
    """A value for a message: its `repr`, of 80 characters at most."""
    return shorten(repr(value), 80)
