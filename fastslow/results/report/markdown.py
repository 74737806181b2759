"""The report as Markdown."""

import re
import shlex
from collections.abc import Iterator

from fastslow.core.prompts import PromptProgram
from fastslow.core.text import visible
from fastslow.records.events import TextEvent
from fastslow.results.render.markdown import code, inline, table_lines
from fastslow.results.report.data import Report
from fastslow.results.report.sections.prompts import Prompts
from fastslow.results.report.verdict import verdict

_LONGEST_TEXT = 4000
"""Characters of one instruction or turn that report.md shows; report.json has all of it."""


def markdown(report: Report) -> str:
    """The text of report.md; it ends with a newline, its only control character."""
    lines = [
        f"# {inline(report.run)}",
        "",
        f"**{inline(verdict(report))}**",
        "",
        f"Made by {code(shlex.join(report.command))}, configuration {code(report.config_hash)}.",
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
    yield f"### {inline(prompt.task)}"
    yield ""
    chosen = (
        "not scored on validation"
        if prompt.validation_mean is None
        else f"validation {prompt.validation_mean:.2f} on {prompt.validation_n} examples"
    )
    yield (
        f"Prompt {code(prompt.program.text_hash)}, chosen in stage {prompt.stage + 1}, {chosen}; "
        f"demonstrations: {len(prompt.program.demonstrations)}."
    )
    yield ""
    yield from _fenced(_dialogue(prompt.program))
    yield ""


def _dialogue(program: PromptProgram) -> list[str]:
    lines = [f"system: {_long(program.instruction)}"] if program.instruction else []
    for demonstration in program.demonstrations:
        lines.append(f"user: {_long(demonstration.question)}")
        lines.append(f"assistant: {_long(demonstration.answer)}")
    return lines or ["(empty)"]


def _long(text: str) -> str:
    cut = text[:_LONGEST_TEXT]
    lines = "\n".join(visible(line) for line in cut.split("\n"))
    return lines if cut == text else f"{lines} … ({len(text) - len(cut)} characters more)"


def _fenced(lines: list[str]) -> Iterator[str]:
    """A code block whose fence is longer than any run of backticks inside."""
    text = "\n".join(lines)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    yield f"{fence}text"
    yield text
    yield fence
