"""The report for a terminal, with rich. Text from outside is displayed, never obeyed."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from fastslow.core.text import shorten, visible
from fastslow.records.events import TextEvent
from fastslow.results.render.layout import Table, footnoted
from fastslow.results.report.section import Report
from fastslow.results.report.sections.cost import Cost
from fastslow.results.report.sections.prompts import Prompts
from fastslow.results.report.sections.scores import Scores
from fastslow.results.report.sections.tasks import Tasks
from fastslow.results.report.verdict import verdict, verdict_sentences

_STYLES = {"plain": "", "strong": "bold", "dim": "dim"}
_WIDTH = 200
"""Characters of one line of a prompt; report.md has more."""
_MAX_DEMONSTRATIONS = 4
_MATRIX = 5
"""Stages or tasks of the largest matrix on the short screen; longer runs show a line a task."""
_MAX_TASKS = 24
"""Lines of that; `--full` has all tasks."""


def render_terminal(report: Report, *, full: bool = False) -> RenderableType:
    """The report for `rich.console.Console.print`; printable characters only.

    One screen: verdict, matrix, what became of each task, cost. `full` has every table and prompt.
    """
    if not full:
        return Group(*_first_screen(report))
    blocks = [render_tables([verdict(report)], report.tables())]
    blocks += [_text(""), _text("Prompts", "bold")]
    prompts = report.section(Prompts).prompts
    if not prompts:
        blocks.append(_text("No prompt was chosen: every task is deployed with its seed prompt."))
    for prompt in prompts:
        blocks += _prompt(prompt)
    return Group(*blocks)


def render_tables(
    headings: Sequence[str], tables: Sequence[Table], *, interval: str = "\n["
) -> RenderableType:
    """Sentences, then tables, in a form that `rich.console.Console.print` takes.

    `interval` stands for the space and bracket before an interval: by default it has its own line.
    """
    blocks: list[RenderableType] = [_text(heading, "bold") for heading in headings]
    for table in map(footnoted, tables):
        blocks += [_text(""), _table(table, interval)]
        if table.note:
            blocks.append(_text(table.note, "dim"))
    return Group(*blocks)


def _first_screen(report: Report) -> Iterator[RenderableType]:
    yield from (_text(sentence, "bold") for sentence in verdict_sentences(report))
    is_short = max(len(report.card.stages), len(report.card.tasks)) <= _MATRIX
    tasks = report.section(Tasks).short_table(with_scores=not is_short)
    more = len(tasks.rows) - _MAX_TASKS
    if more > 0:
        note = f"{more} more tasks: --full. {tasks.note}"
        tasks = Table(tasks.title, tasks.header, tasks.rows[:_MAX_TASKS], note)
    if is_short:
        yield render_tables((), [report.section(Scores).short_table()])
    yield render_tables((), [tasks], interval=" [")
    yield _text(report.section(Cost).sentence)


def _table(table: Table, interval: str) -> RichTable:
    rich_table = RichTable(
        title=_text(table.title, "bold"), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    rich_table.show_edge = False
    for name in table.header:
        rich_table.add_column(_text(name), overflow="fold")
    for row in table.rows:
        rich_table.add_row(
            *(_text(cell.text.replace(" [", interval), _STYLES[cell.style]) for cell in row)
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
