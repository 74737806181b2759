"""Which columns of a table hold questions and answers: a proposal, by their names and contents."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from fastslow.task.summary import MAX_ANSWERS
from fastslow.task.table_files import Row

QUESTIONS = ("question", "text", "input", "prompt", "sentence", "content", "message", "body")
ANSWERS = ("answer", "label", "target", "output", "class", "category", "intent", "completion")
"""Names that such columns often have, the surest first. Source: ours."""
SEEN_ROWS = 1000
"""Rows that are looked at."""


@dataclass(frozen=True)
class ColumnProposal:
    """The columns of a table, and those that probably hold questions and answers."""

    names: tuple[str, ...]
    question: str | None
    """None where no column holds text."""
    answer: str | None
    """None where no column besides holds values that repeat."""


def propose_columns(rows: Sequence[Row]) -> ColumnProposal:
    """A proposal for a table: by name, else the longest texts and the fewest different values."""
    seen = [row.values for row in rows[:SEEN_ROWS]]
    columns: dict[str, list[object]] = {}
    for values in seen:
        for name, value in values.items():
            columns.setdefault(name, []).append(value)
    lengths = {
        name: fmean(map(len, texts))
        for name, values in columns.items()
        if (texts := [value for value in values if isinstance(value, str)])
        and 2 * len(texts) > len(values)
    }
    answer = _by_name(columns, ANSWERS)
    texts = [name for name in lengths if name != answer]
    question = _by_name(texts, QUESTIONS) or max(texts, key=lengths.__getitem__, default=None)
    if answer is None:
        counts = {
            name: len(set(map(str, values)))
            for name, values in columns.items()
            if name != question and not isinstance(values[0], dict | list)
        }
        classes = [name for name, count in counts.items() if 1 < count <= MAX_ANSWERS]
        answer = min(classes, key=counts.__getitem__, default=None)
    return ColumnProposal(tuple(columns), question, answer)


def _by_name(columns: Sequence[str] | dict[str, list[object]], names: Sequence[str]) -> str | None:
    folded = {name.casefold(): name for name in columns}
    return next((folded[name] for name in names if name in folded), None)
