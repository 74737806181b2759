"""`fastslow prompts`: the prompts of a run, cycle by cycle, how two differ, where one came from.

Prompts are untrusted: every line made here is visible characters only.
"""

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fastslow.core.errors import ConfigError, nearest
from fastslow.core.prompts import PromptProgram
from fastslow.core.text import shorten, visible
from fastslow.records.events import Event, PopulationEvent, ScoreRow, TextEvent
from fastslow.records.jsonl import read_events, read_records
from fastslow.records.run_folder import require_no_links

MIN_PREFIX = 4
"""Digits of a prompt's hash that are enough to name it, if no other prompt begins so."""
WIDTH = 100
"""Characters of an instruction in the overview."""


@dataclass(frozen=True)
class PromptHistory:
    """Every prompt a run kept, in the order of its cycles."""

    run: str
    """Name of the run folder."""
    populations: tuple[PopulationEvent, ...]
    """The prompts kept after each fast phase."""
    chosen: tuple[TextEvent, ...]
    """The prompt deployed after each stage that had a fast phase."""
    seeds: frozenset[str]
    """Hashes of the prompts that tasks started from, where scores were read."""

    @property
    def programs(self) -> dict[str, PromptProgram]:
        """Every prompt by its hash."""
        programs = [c.program for event in self.populations for c in event.candidates]
        return {p.text_hash: p for p in [*programs, *(event.program for event in self.chosen)]}


def read_prompts(run_path: Path, *, with_seeds: bool = False) -> PromptHistory:
    """Collect the prompts of a run, finished or not; `seeds`, for which scores are read, if asked.

    Raises:
        CheckpointError: It is not a run folder, has a link in it, or a record in it is damaged.
    """
    require_no_links(run_path)
    events = read_events(run_path / "events.jsonl")
    rows = read_records(run_path / "scores.jsonl") if with_seeds else ()
    return prompt_history(run_path.name, events, rows)


def prompt_history(
    run: str, events: Iterable[Event], rows: Iterable[ScoreRow | Event]
) -> PromptHistory:
    """Collect the prompts that records of a run name."""
    events = tuple(events)
    return PromptHistory(
        run=run,
        populations=tuple(e for e in events if isinstance(e, PopulationEvent)),
        chosen=tuple(e for e in events if isinstance(e, TextEvent)),
        seeds=frozenset(
            row.sample.text_hash
            for row in rows
            if isinstance(row, ScoreRow) and row.sample.prompt_policy == "seed"
        ),
    )


def overview_lines(history: PromptHistory) -> Iterator[str]:
    """The population after each fast phase, best first; `*` marks what the stage deployed."""
    if not history.populations:
        yield "No prompts: no fast phase has ended in this run."
    live = {event.stage: event.program.text_hash for event in history.chosen}
    for event in history.populations:
        yield f"stage {event.stage + 1}, cycle {event.cycle + 1}, {visible(event.task)}"
        for candidate in event.candidates:
            program = candidate.program
            mark = "*" if program.text_hash == live.get(event.stage) else " "
            scored = f"{candidate.mean:.2f} on {len(candidate.scores)}"
            yield (
                f"  {mark} {program.text_hash}  {scored}  {visible(program.lineage.optimizer)}  "
                f"{len(program.demonstrations)} examples  "
                f"{shorten(program.instruction, WIDTH) or '(no system text)'}"
            )
    for chosen in history.chosen:
        mean = chosen.validation_mean
        scored = "" if mean is None else f", validation {mean:.2f} on {chosen.validation_n}"
        text_hash = chosen.program.text_hash
        yield f"* stage-{chosen.stage + 1}: {visible(chosen.task)} deploys {text_hash}{scored}"


def diff_lines(history: PromptHistory, first: str, second: str) -> Iterator[str]:
    """A unified diff of two prompts, each named as for `find`, with its errors."""
    a, b = find(history, first), find(history, second)
    names = [
        name if program.text_hash == name else f"{name} ({program.text_hash})"
        for name, program in ((first, a), (second, b))
    ]
    diff = difflib.unified_diff(text_lines(a), text_lines(b), names[0], names[1], lineterm="")
    lines = [visible(line) for line in diff]
    yield from lines or [f"{visible(first)} and {visible(second)} are the same prompt."]


def trace_lines(history: PromptHistory, name: str) -> Iterator[str]:
    """A prompt, named as for `find`, its parent, and so on to the one the task started from."""
    last = find(history, name)
    for program in ancestors(last, history):
        last = program
        yield origin(program)
        for line in text_lines(program):
            yield f"    {visible(line)}"
    parent = last.lineage.parent
    if parent is not None and parent not in history.programs:
        start = "the prompt the task started from" if parent in history.seeds else "not kept"
        yield f"{visible(parent)}  {start}"


def ancestors(program: PromptProgram, history: PromptHistory) -> Iterator[PromptProgram]:
    """A prompt, its parent, and so on, as far as they were kept; each once."""
    programs, seen = history.programs, set[str]()
    current: PromptProgram | None = program
    while current is not None and current.text_hash not in seen:
        yield current
        seen.add(current.text_hash)
        current = programs.get(current.lineage.parent or "")


def origin(program: PromptProgram) -> str:
    """One line: the prompt's hash, its optimizer, when it was made, and under which weights."""
    lineage = program.lineage
    if lineage.parent is None:
        return f"{program.text_hash}  {visible(lineage.optimizer)}"
    when = [
        f"{word} {number + 1}"
        for word, number in (("stage", lineage.stage), ("cycle", lineage.cycle))
        if number is not None
    ]
    weights = f", weights {visible(lineage.weights)}" if lineage.weights else ""
    return (
        f"{program.text_hash}  {visible(lineage.optimizer)}, {', '.join(when)}{weights}, "
        f"from {visible(lineage.parent)}"
    )


def text_lines(program: PromptProgram) -> list[str]:
    """A prompt line by line, each turn under its role."""
    lines = [f"system: {line}" for line in program.instruction.split("\n")]
    for demonstration in program.demonstrations:
        lines += [f"user: {line}" for line in demonstration.question.split("\n")]
        lines += [f"assistant: {line}" for line in demonstration.answer.split("\n")]
    return lines


def find(history: PromptHistory, name: str) -> PromptProgram:
    """The prompt of that name: its hash, the beginning of it, or `stage-<number>`, deployed then.

    Raises:
        ConfigError: No prompt, or more than one, has that name.
    """
    live = {f"stage-{event.stage + 1}": event.program for event in history.chosen}
    programs = live | history.programs
    matches = [name] if name in programs else []
    if not matches and len(name) >= MIN_PREFIX:
        matches = [text_hash for text_hash in history.programs if text_hash.startswith(name)]
    if len(matches) == 1:
        return programs[matches[0]]
    problem = "more than one prompt begins so" if matches else "no such prompt"
    raise ConfigError(
        f"{visible(history.run)}: {problem}, got {name!r}.{nearest(name, list(programs))} Give "
        f"a prompt's hash, its first {MIN_PREFIX} digits or more, or stage-<number>; "
        f"`fastslow prompts` without options lists them."
    )
