"""Markdown that shows untrusted text without obeying it."""

import re
from collections.abc import Iterator

from fastslow.core.text import shorten
from fastslow.results.render.layout import Table, Text, footnoted


def table_lines(table: Table) -> Iterator[str]:
    """Lines of one table under a second-level heading, with its note."""
    table = footnoted(table)
    yield f"## {inline(table.title)}"
    yield ""
    yield _row([inline(name) for name in table.header])
    yield _row(["---"] * len(table.header))
    for row in table.rows:
        yield _row([_cell(text) for text in row])
    yield ""
    if table.note:
        yield inline(table.note)
        yield ""


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(text: Text) -> str:
    if text.is_code:
        return code_cell(text.text)
    content = inline(text.text)
    return f"**{content}**" if text.style == "strong" else content


def code(text: str) -> str:
    """A code span of one line; backticks inside cannot end it."""
    content = shorten(text, 500)
    ticks = fence(content, 1)
    pad = " " if content.startswith("`") or content.endswith("`") else ""
    return f"{ticks}{pad}{content}{pad}{ticks}"


def fence(text: str, least: int) -> str:
    """Backticks, more than stand in a row anywhere in a text."""
    return "`" * max(least, 1 + max(map(len, re.findall("`+", text)), default=0))


def code_cell(text: str) -> str:
    """The same inside a table."""
    return code(text).replace("|", "\\|")


def inline(text: str) -> str:
    """One line of plain text: nothing in it starts a tag, a link, a code span or a table cell."""
    escaped = re.sub(r"([\\`|*])", r"\\\1", shorten(text, 2000))
    return escaped.replace("<", "&lt;").replace("](", "]\\(")
