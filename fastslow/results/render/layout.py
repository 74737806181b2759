"""Tables of a report, and the form of numbers in them."""

from collections import Counter
from dataclasses import dataclass, replace
from string import ascii_lowercase
from typing import Literal, TypeAlias

from fastslow.core.types import Metric
from fastslow.measure.stats.intervals import Interval, PairedDifference

MAX_COLUMNS = 32
"""Of a table on a page, but for the score matrix on its first screen."""
Style: TypeAlias = Literal["plain", "strong", "dim"]


@dataclass(frozen=True, slots=True)
class Text:
    """A table cell."""

    text: str
    style: Style = "plain"
    is_code: bool = False
    """Whether it is a formula or a name, to be set in a fixed-width font."""
    reason: str = ""
    """Why there is no value or no interval; `footnoted` shows it."""


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table with a note under it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Text, ...], ...]
    note: str = ""


def footnoted(table: Table) -> Table:
    """The table with the reasons in its cells shown: behind the value, or in place of one.

    A reason of several cells is said once, in the note, and its cells refer to it by a letter.
    """
    counts = Counter(cell.reason for cells in table.rows for cell in cells if cell.reason)
    repeated = [reason for reason, count in counts.items() if count > 1]
    marks = dict(zip(repeated, ascii_lowercase, strict=False))

    def whole_cell(cell: Text) -> Text:
        reason = marks.get(cell.reason, cell.reason)
        is_behind = bool(reason and (cell.text or cell.reason in marks))
        text = f"{cell.text} ({reason})".strip() if is_behind else cell.text or reason
        return replace(cell, text=text, reason="")

    rows = tuple(tuple(map(whole_cell, cells)) for cells in table.rows)
    notes = (f"({mark}) {reason}." for reason, mark in marks.items())
    return replace(table, rows=rows, note=" ".join((*filter(None, (table.note,)), *notes)))


def narrow(table: Table) -> Table:
    """The table as a page can show it: its first columns, and in the note how many it has."""
    if (num_columns := len(table.header)) <= MAX_COLUMNS:
        return table
    rows = tuple(cells[:MAX_COLUMNS] for cells in table.rows)
    note = f"The first {MAX_COLUMNS} of {num_columns} columns; all are in the .md. {table.note}"
    return Table(table.title, table.header[:MAX_COLUMNS], rows, note.strip())


def is_figure_like(cell: Text) -> bool:
    """Whether a cell is a number, maybe with an interval, and belongs to the right."""
    return not cell.is_code and cell.text[:1] in tuple("0123456789+-(") and len(cell.text) < 40


def row(*cells: Text | str | float) -> tuple[Text, ...]:
    """A row of a table; whatever is not a cell yet becomes a plain one."""
    return tuple(cell if isinstance(cell, Text) else Text(str(cell)) for cell in cells)


def figure_row(name: str, formula: str, *cells: Text) -> tuple[Text, ...]:
    """A row that begins with the name of a figure and ends with its formula."""
    return (Text(name, is_code=True), *cells, Text(formula, is_code=True))


def difference(change: PairedDifference) -> str:
    """A paired difference with its interval, or with the reason why it has none."""
    if change.low is None or change.high is None:
        return f"{change.mean:+.2f} ({change.reason})"
    return f"{change.mean:+.2f} [{change.low:+.2f}, {change.high:+.2f}]"


def difference_text(change: PairedDifference, mark: str = "", style: Style = "plain") -> Text:
    """The same as a cell, with a mark behind the figure."""
    if change.low is None or change.high is None:
        return Text(f"{change.mean:+.2f}{mark}", style, reason=change.reason or "")
    return Text(difference(change) + mark, style)


def brackets(interval: Interval | None) -> str:
    """An interval behind a score, or nothing."""
    return "" if interval is None else f" [{interval.low:.2f}, {interval.high:.2f}]"


def score_or_dash(value: float | None) -> str:
    """A score, or a dash where there is none."""
    return "-" if value is None else f"{value:.2f}"


def metric_text(metric: Metric | None, digits: int = 2, interval: Interval | None = None) -> Text:
    """The value of a metric, or why there is none, or a dash where there is no metric."""
    if metric is None:
        return Text("-", "dim")
    if metric.value is None:
        return Text("", "dim", reason=metric.reason or "undefined")
    return Text(f"{metric.value:.{digits}f}{brackets(interval)}")
