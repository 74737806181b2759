"""Tables of a report, and the form of numbers in them."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from fastslow.core.types import Metric
from fastslow.measure.stats.intervals import Interval, PairedDifference

Style: TypeAlias = Literal["plain", "strong", "dim"]


@dataclass(frozen=True, slots=True)
class Text:
    """A table cell."""

    text: str
    style: Style = "plain"
    is_code: bool = False
    """Whether it is a formula or a name, to be set in a fixed-width font."""


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table with a note under it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Text, ...], ...]
    note: str = ""


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


def brackets(interval: Interval | None) -> str:
    """An interval behind a score, or nothing."""
    return "" if interval is None else f" [{interval.low:.2f}, {interval.high:.2f}]"


def score_or_dash(value: float | None) -> str:
    """A score, or a dash where there is none."""
    return "-" if value is None else f"{value:.2f}"


def metric_text(metric: Metric | None, digits: int = 2, interval: Interval | None = None) -> Text:
    """The value of a metric; dimmed, why there is none, or a dash where there is no metric."""
    if metric is None:
        return Text("-", "dim")
    if metric.value is None:
        return Text(metric.reason or "undefined", "dim")
    return Text(f"{metric.value:.{digits}f}{brackets(interval)}")
