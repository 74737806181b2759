"""The report for a terminal, with rich. Text from outside is displayed, never obeyed."""

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from fastslow.core.text import shorten, visible
from fastslow.records.events import TextEvent
from fastslow.results.render.layout import Table
from fastslow.results.report.section import Report
from fastslow.results.report.sections.prompts import Prompts
from fastslow.results.report.verdict import verdict

_STYLES = {"plain": "", "strong": "bold", "dim": "dim"}
_WIDTH = 200
"""Characters of one line of a prompt; report.md has more."""
_MAX_DEMONSTRATIONS = 4


def render_terminal(report: Report) -> RenderableType:
    """Verdict, tables and prompts for `rich.console.Console.print`; printable characters only."""
    tables = [t for section in report.sections for t in section.terminal_tables() if t.rows]
    blocks = [render_tables([verdict(report)], tables), _text(""), _text("Prompts", "bold")]
    prompts = report.section(Prompts).prompts
    if not prompts:
        blocks.append(_text("No prompt was chosen: every task is deployed with its seed prompt."))
    for prompt in prompts:
        blocks += _prompt(prompt)
    return Group(*blocks)


def render_tables(headings: Sequence[str], tables: Sequence[Table]) -> RenderableType:
    """Sentences, then tables, in a form that `rich.console.Console.print` takes."""
    blocks: list[RenderableType] = [_text(heading, "bold") for heading in headings]
    for table in tables:
        blocks += [_text(""), _table(table), _text(table.note, "dim")]
    return Group(*blocks)


def _table(table: Table) -> RichTable:
    rich_table = RichTable(
        title=_text(table.title, "bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for name in table.header:
        rich_table.add_column(_text(name), overflow="fold")
    for row in table.rows:
        rich_table.add_row(
            *(_text(cell.text.replace(" [", "\n["), _STYLES[cell.style]) for cell in row)
        )
    return rich_table


def _prompt(prompt: TextEvent) -> list[RenderableType]:
    program, mean = prompt.program, prompt.validation_mean
    scored = "" if mean is None else f", validation {mean:.2f} on {prompt.validation_n}"
    lines: list[RenderableType] = [
        _text(f"{prompt.task}: prompt {program.text_hash}{scored}"),
        _text(f"  system: {shorten(program.instruction, _WIDTH) or '(none)'}", "dim"),
    ]
    for demonstration in program.demonstrations[:_MAX_DEMONSTRATIONS]:
        pair = f"{demonstration.question} -> {demonstration.answer}"
        lines.append(_text(f"  example: {shorten(pair, _WIDTH)}", "dim"))
    num_more = len(program.demonstrations) - _MAX_DEMONSTRATIONS
    if num_more > 0:
        lines.append(_text(f"  and {num_more} more examples", "dim"))
    return lines


def _text(text: str, style: str = "") -> Text:
    """Text with our style and no other: no markup, no control characters but newlines."""
    return Text("\n".join(visible(line) for line in text.split("\n")), style=style)
