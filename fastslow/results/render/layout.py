"""What a table of a report is made of, and how numbers look in it."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

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


def difference(change: PairedDifference) -> str:
    """A paired difference with its interval, or with why it has none."""
    if change.low is None or change.high is None:
        return f"{change.mean:+.2f} ({change.reason})"
    return f"{change.mean:+.2f} [{change.low:+.2f}, {change.high:+.2f}]"


def brackets(interval: Interval | None) -> str:
    """An interval behind a score, or nothing."""
    return "" if interval is None else f" [{interval.low:.2f}, {interval.high:.2f}]"


def shown(value: float | None) -> str:
    """A score, or a dash where there is none."""
    return "-" if value is None else f"{value:.2f}"
