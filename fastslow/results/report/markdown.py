"""The report as Markdown."""

import shlex
from collections.abc import Iterator

from fastslow.core.prompts import PromptProgram
from fastslow.core.text import visible
from fastslow.records.events import TextEvent
from fastslow.results.render.markdown import code, fence, inline, table_lines
from fastslow.results.report.section import Report
from fastslow.results.report.sections.prompts import Prompts
from fastslow.results.report.verdict import verdict

_LONGEST_TEXT = 4000
"""Characters of one instruction or turn that report.md shows; report.json has all of it."""


def markdown(report: Report) -> str:
    """The text of report.md; it ends with a newline, its only control character."""
    card = report.card
    lines = [
        f"# {inline(card.run)}",
        "",
        f"**{inline(verdict(report))}**",
        "",
        f"Made by {code(shlex.join(card.command))}, configuration {code(card.config_hash)}.",
        "",
    ]
    for table in report.tables():
        lines += table_lines(table)
    prompts = report.section(Prompts).prompts
    lines += ["## Prompts", ""]
    if not prompts:
        lines += ["No prompt was chosen: every task is deployed with its seed prompt.", ""]
    for prompt in prompts:
        lines += _prompt(prompt)
    return "\n".join(lines).rstrip("\n") + "\n"


def _prompt(prompt: TextEvent) -> Iterator[str]:
    yield from (f"### {inline(prompt.task)}", "")
    chosen = "not scored on validation"
    if prompt.validation_mean is not None:
        chosen = f"validation {prompt.validation_mean:.2f} on {prompt.validation_n} examples"
    yield (
        f"Prompt {code(prompt.program.text_hash)}, chosen in stage {prompt.stage + 1}, {chosen}; "
        f"demonstrations: {len(prompt.program.demonstrations)}.\n"
    )
    text = _dialogue(prompt.program)
    ticks = fence(text, 3)
    yield from (f"{ticks}text", text, ticks, "")


def _dialogue(program: PromptProgram) -> str:
    turns = [("system", program.instruction)] if program.instruction else []
    for demonstration in program.demonstrations:
        turns += [("user", demonstration.question), ("assistant", demonstration.answer)]
    return "\n".join(f"{role}: {_long(text)}" for role, text in turns) or "(empty)"


def _long(text: str) -> str:
    cut = text[:_LONGEST_TEXT]
    lines = "\n".join(visible(line) for line in cut.split("\n"))
    return lines if cut == text else f"{lines} … ({len(text) - len(cut)} characters more)"
