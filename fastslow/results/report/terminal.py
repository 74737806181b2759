"""The report for a terminal, with rich. Text from outside is shown, never obeyed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastslow.core.text import shorten, visible
from fastslow.results.render.layout import Table
from fastslow.results.report.data import Prompt, Report
from fastslow.results.report.tables import tables
from fastslow.results.report.verdict import verdict

if TYPE_CHECKING:
    import rich.text
    from rich.console import RenderableType

_STYLES = {"plain": "", "strong": "bold", "dim": "dim"}
_WIDTH = 200
"""Characters of one prompt line shown here; report.md has more."""
_MAX_DEMONSTRATIONS = 4


def render_terminal(report: Report) -> "RenderableType":
    """The report as something `rich.console.Console.print` shows: verdict, tables, texts.

    Args:
        report: The report.

    Returns:
        A rich renderable without markup; every character in it is printable.
    """
    from rich.console import Group

    blocks: list[RenderableType] = [_text(verdict(report), "bold"), _text("")]
    for table in tables(report, headline_only=True):
        blocks += [_table(table), _text(table.note, "dim"), _text("")]
    blocks += [_text("Texts", "bold")]
    if not report.prompts:
        blocks.append(_text("No text was chosen: every task is deployed with its seed text."))
    for prompt in report.prompts:
        blocks += _prompt(prompt)
    return Group(*blocks)


def render_tables(headings: Sequence[str], made: Sequence[Table]) -> "RenderableType":
    """Sentences, then tables, as something `rich.console.Console.print` shows."""
    from rich.console import Group

    blocks: list[RenderableType] = [_text(heading, "bold") for heading in headings]
    for table in made:
        blocks += [_text(""), _table(table), _text(table.note, "dim")]
    return Group(*blocks)


def _table(table: Table) -> "RenderableType":
    from rich import box
    from rich.table import Table as RichTable

    made = RichTable(
        title=_text(table.title, "bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for name in table.header:
        made.add_column(_text(name), overflow="fold")
    for row in table.rows:
        made.add_row(*(_text(cell.text.replace(" [", "\n["), _STYLES[cell.style]) for cell in row))
    return made


def _prompt(prompt: Prompt) -> list["RenderableType"]:
    program, mean = prompt.program, prompt.validation_mean
    scored = "" if mean is None else f", validation {mean:.2f} on {prompt.validation_n}"
    lines: list[RenderableType] = [
        _text(f"{prompt.task}: text {program.text_hash}{scored}"),
        _text(f"  system: {shorten(program.instruction, _WIDTH) or '(none)'}", "dim"),
    ]
    for demonstration in program.demonstrations[:_MAX_DEMONSTRATIONS]:
        pair = f"{demonstration.question} -> {demonstration.answer}"
        lines.append(_text(f"  example: {shorten(pair, _WIDTH)}", "dim"))
    left = len(program.demonstrations) - _MAX_DEMONSTRATIONS
    if left > 0:
        lines.append(_text(f"  and {left} more examples", "dim"))
    return lines


def _text(text: str, style: str = "") -> "rich.text.Text":
    """Text with our style and no other: no markup, no control characters but newlines."""
    from rich.text import Text

    return Text("\n".join(visible(line) for line in text.split("\n")), style=style)
