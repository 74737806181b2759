"""Where each deployed text came from, step by step, with what every step changed."""

import difflib
from dataclasses import dataclass

from fastslow.core.prompts import PromptProgram
from fastslow.results.render.layout import Table, Text
from fastslow.results.report.data import Prompt
from fastslow.results.report.sections.texts import PromptHistory, origin, text_lines

MAX_STEPS = 8
"""Ancestors shown of one text."""
MAX_LINES = 120
"""Lines shown of one text or difference."""
MAX_CHARACTERS = 600
"""Characters shown of one line; report.json has the deployed texts whole."""
MAX_ROWS = 200
"""Rows of the table of populations."""


@dataclass(frozen=True, slots=True)
class Step:
    """One text on the way, and how it differs from the one it was made from."""

    origin: str
    """What made it, when, and from what."""
    lines: tuple[str, ...]
    """The text whole, or the difference to its parent; raw, as models wrote it."""
    is_difference: bool
    """Whether `lines` begin with `+`, `-` or a space, as in a unified diff."""
    note: str
    """What `lines` are; why there is no difference to a parent."""


@dataclass(frozen=True, slots=True)
class TextLineage:
    """The text a task is deployed with, and its ancestors, newest first."""

    prompt: Prompt
    lines: tuple[str, ...]
    """The deployed text, raw."""
    steps: tuple[Step, ...]


def lineages(prompts: tuple[Prompt, ...], history: PromptHistory) -> tuple[TextLineage, ...]:
    """One per deployed text, in the order given."""
    return tuple(
        TextLineage(prompt, _cut(text_lines(prompt.program)), _steps(prompt.program, history))
        for prompt in prompts
    )


def _steps(program: PromptProgram, history: PromptHistory) -> tuple[Step, ...]:
    programs, seen = history.programs, {program.text_hash}
    steps: list[Step] = []
    at: PromptProgram | None = program
    while at is not None and len(steps) < MAX_STEPS:
        name = at.lineage.parent
        parent = None if name is None or name in seen else programs.get(name)
        steps.append(_step(at, parent, history))
        seen.add(name or "")
        at = parent
    return tuple(steps)


def _step(program: PromptProgram, parent: PromptProgram | None, history: PromptHistory) -> Step:
    if parent is not None:
        found = difflib.unified_diff(text_lines(parent), text_lines(program), lineterm="", n=2)
        lines = [line for line in found if not line.startswith(("---", "+++", "@@"))]
        note = f"What changed against {parent.text_hash}." if lines else "Nothing changed."
        return Step(origin(program), _cut(lines), True, note)
    if program.lineage.parent is None:
        note = "The text the task started from."
    elif program.lineage.parent in history.seeds:
        note = "Made from the text the task started from, which is not in the records; in full:"
    else:
        note = "The text it was made from was not kept; in full:"
    return Step(origin(program), _cut(text_lines(program)), False, note)


def _cut(lines: list[str]) -> tuple[str, ...]:
    kept = [
        line if len(line) <= MAX_CHARACTERS else f"{line[:MAX_CHARACTERS]} …"
        for line in lines[:MAX_LINES]
    ]
    left = len(lines) - len(kept)
    return (*kept, *([f"… {left} lines more"] if left else []))


def population_table(history: PromptHistory) -> Table:
    """Every text kept after every fast phase, best first."""
    live = {event.stage: event.program.text_hash for event in history.chosen}
    rows = [
        (
            Text(f"{event.stage + 1} {event.task}"),
            Text(str(event.cycle + 1)),
            Text(candidate.program.text_hash, is_code=True),
            Text(f"{candidate.mean:.2f}"),
            Text(str(len(candidate.scores))),
            Text(candidate.program.lineage.optimizer),
            Text(candidate.program.lineage.parent or "-", is_code=True),
            Text("deployed" if candidate.program.text_hash == live.get(event.stage) else "-"),
        )
        for event in history.populations
        for candidate in event.candidates
    ]
    cut = f" The first {MAX_ROWS} of {len(rows)}." if len(rows) > MAX_ROWS else ""
    return Table(
        "Texts kept after each fast phase",
        ("stage", "cycle", "text", "mean", "n", "made by", "from", ""),
        tuple(rows[:MAX_ROWS]),
        "Best first. Mean: on the problems of the cycle's anchor set, on which texts are selected, "
        f"so it is biased up.{cut}",
    )
