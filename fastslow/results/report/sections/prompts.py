"""The prompt that each task is deployed with, and where it came from, step by step."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from fastslow.core.prompts import PromptProgram
from fastslow.records.deployments import deployed_row
from fastslow.records.events import TextEvent
from fastslow.results.render.layout import Table, Text, row
from fastslow.results.report.prompt_history import (
    PromptHistory,
    ancestors,
    origin,
    prompt_history,
    text_lines,
)
from fastslow.results.report.section import Records, Section, stage_label

MAX_STEPS = 8
"""Ancestors of one prompt."""
MAX_LINES = 120
"""Lines of one prompt or difference."""
MAX_CHARACTERS = 600
"""Characters of one line; report.json has the deployed prompts whole."""
MAX_ROWS = 200
"""Rows of the table of populations."""


@dataclass(frozen=True, slots=True)
class Step:
    """One prompt on the way, and how it differs from the one it was made from."""

    origin: str
    """Its optimizer, when it was made, and from which prompt."""
    lines: tuple[str, ...]
    """The whole prompt, or the difference to its parent; raw, as models wrote it."""
    is_difference: bool
    """Whether `lines` begin with `+`, `-` or a space, as in a unified diff."""
    note: str
    """The nature of `lines`; why there is no difference to a parent."""


class Prompts(Section):
    """The deployed prompts, in the order of the matrix, and every prompt that the run kept."""

    chapter = "prompts"

    def __init__(self, records: Records) -> None:
        tasks, deployed = records.card.tasks, deployed_row(records.path, len(records.card.stages))
        live = {e.task: e for e in records.events_of(TextEvent) if e.stage < deployed}
        self.prompts = [live[task] for task in tasks if task in live]
        self.history = prompt_history(records.card.run, records.events, records.scores)

    def lines(self, prompt: TextEvent) -> tuple[str, ...]:
        """A deployed prompt, raw."""
        return _cut(text_lines(prompt.program))

    def steps(self, prompt: TextEvent) -> list[Step]:
        """A deployed prompt and its ancestors, newest first."""
        programs = list(islice(ancestors(prompt.program, self.history), MAX_STEPS + 1))
        parents = [*programs[1:], None][:MAX_STEPS]
        pairs = zip(programs[:MAX_STEPS], parents, strict=True)
        return [_step(program, parent, self.history) for program, parent in pairs]

    def to_json(self) -> Mapping[str, object]:
        return {"prompts": {prompt.task: _prompt_json(prompt) for prompt in self.prompts}}

    def page_tables(self) -> Iterator[Table]:
        live = {event.stage: event.program.text_hash for event in self.history.chosen}
        rows = [
            row(
                stage_label(event.stage, event.task),
                event.cycle + 1,
                Text(candidate.program.text_hash, is_code=True),
                f"{candidate.mean:.2f}",
                len(candidate.scores),
                candidate.program.lineage.optimizer,
                Text(candidate.program.lineage.parent or "-", is_code=True),
                "deployed" if candidate.program.text_hash == live.get(event.stage) else "-",
            )
            for event in self.history.populations
            for candidate in event.candidates
        ]
        cut = f" The first {MAX_ROWS} of {len(rows)}." if len(rows) > MAX_ROWS else ""
        yield Table(
            "Prompts kept after each fast phase",
            ("stage", "cycle", "prompt", "mean", "n", "made by", "from", ""),
            tuple(rows[:MAX_ROWS]),
            "Best first. Mean: on the problems of the cycle's anchor set, on which prompts are "
            f"selected, so it is biased up.{cut}",
        )


def _prompt_json(prompt: TextEvent) -> dict[str, object]:
    return {
        **prompt.program.to_json(),
        "stage": prompt.stage,
        "text_hash": prompt.program.text_hash,
        "validation_mean": prompt.validation_mean,
        "validation_n": prompt.validation_n,
    }


def _step(program: PromptProgram, parent: PromptProgram | None, history: PromptHistory) -> Step:
    if parent is not None:
        diff = difflib.unified_diff(text_lines(parent), text_lines(program), lineterm="", n=2)
        lines = [line for line in diff if not line.startswith(("---", "+++", "@@"))]
        note = f"What changed against {parent.text_hash}." if lines else "Nothing changed."
        return Step(origin(program), _cut(lines), True, note)
    if program.lineage.parent is None:
        note = "The prompt the task started from."
    elif program.lineage.parent in history.seeds:
        note = "Made from the prompt the task started from, which is not in the records; in full:"
    else:
        note = "The prompt it was made from was not kept; in full:"
    return Step(origin(program), _cut(text_lines(program)), False, note)


def _cut(lines: list[str]) -> tuple[str, ...]:
    """The first lines, each cut to its first characters."""
    first = [
        line if len(line) <= MAX_CHARACTERS else f"{line[:MAX_CHARACTERS]} …"
        for line in lines[:MAX_LINES]
    ]
    num_more = len(lines) - len(first)
    return (*first, *([f"… {num_more} lines more"] if num_more else []))
