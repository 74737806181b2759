"""Pieces of the page: paragraphs, tables, figures and verdicts."""

import textwrap
from collections.abc import Iterable, Sequence


def prose(text: str) -> list[str]:
    """A paragraph in lines, and an empty one."""
    text = " ".join(text.split())
    return [*textwrap.wrap(text, 98, break_long_words=False, break_on_hyphens=False), ""]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A Markdown table and an empty line."""
    marks = ["---"] * len(header)
    return [*(f"| {' | '.join(cells)} |" for cells in (header, marks, *rows)), ""]


def estimate(figure: Sequence[float | None], sign: str = "+") -> str:
    """A figure with its interval; `sign` is that of formats."""
    value, low, high = figure
    if value is None:
        return "-"
    limits = "" if low is None or high is None else f" [{low:{sign}.2f}, {high:{sign}.2f}]"
    return f"{value:{sign}.2f}{limits}"


def verdict(question: str, rule: str, answer: str, decider: str) -> list[str]:
    """A question's answer, what each answer meant before there was one, and what would decide it.

    `decider` is said of an open answer alone.
    """
    text = f"**{question}? {answer[0].upper()}{answer[1:]}** ({rule}; else undecided)."
    is_open = answer.startswith(("undecided", "not decidable"))
    return prose(f"{text} What would decide it: {decider}." if is_open else text)
