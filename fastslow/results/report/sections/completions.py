"""A few completions of each task at the end of a run: right, wrong, and lost since it was learned.

Completions are untrusted text; who shows them makes them visible.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from fastslow.core.seeds import derive_seed
from fastslow.core.types import PromptPolicy, SampleScore
from fastslow.records.events import ScoreRow
from fastslow.results.report.data import Report

PER_GROUP = 3
"""Completions shown of each kind."""
RIGHT = 0.5
"""Scores from here on count as right. Source: ours, for graded scores."""
_WITHHELD = re.compile(r"\(withheld, \d+ characters\)")
"""What stands for a text that was taken out of a kept run."""
Key: TypeAlias = tuple[int, str, PromptPolicy]
"""Row of the matrix, task, role of the text."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One graded completion, and what it was when the task had just been learned."""

    now: SampleScore
    learned: SampleScore | None = None
    """Only where the example was lost since."""


@dataclass(frozen=True, slots=True)
class TaskSamples:
    """Some completions of one task in the last row that was measured."""

    task: str
    row: int
    """Row of the matrix they are from."""
    n: int
    """Completions in that cell."""
    is_withheld: bool
    """Whether the texts were taken out when the run was kept."""
    right: tuple[Sample, ...]
    wrong: tuple[Sample, ...]
    lost: tuple[Sample, ...]
    """Right when the task had been learned, wrong now."""


def task_samples(report: Report, rows: Iterable[ScoreRow]) -> tuple[TaskSamples, ...]:
    """Completions of every scored task, chosen by a hash of their names, not by their looks.

    Args:
        report: The run's report: which text was deployed where.
        rows: Every score row of the run.
    """
    cells = _cells(rows)
    made = []
    for column, task in enumerate(report.tasks):
        keys = [(row, task, c[column].prompt_policy) for row, c in enumerate(report.cells)]
        measured = [key for key in keys if key in cells]
        if measured:
            learned = report.summaries[column].learned_row
            before = cells.get(keys[learned], {}) if learned is not None else {}
            made.append(_of_task(task, measured[-1][0], cells[measured[-1]], before))
    return tuple(made)


Cell: TypeAlias = dict[str, SampleScore]
"""The first completion of each example."""


def _cells(rows: Iterable[ScoreRow]) -> dict[Key, Cell]:
    cells: dict[Key, Cell] = {}
    for row in rows:
        if row.cycle is None and row.sample.sample == 0:
            key = (row.row, row.sample.task, row.sample.prompt_policy)
            cells.setdefault(key, {})[row.sample.example] = row.sample
    return cells


def _of_task(task: str, row: int, now: Cell, before: Cell) -> TaskSamples:
    def some(wanted: Callable[[SampleScore], bool]) -> tuple[Sample, ...]:
        return tuple(Sample(s) for s in order if wanted(s))[:PER_GROUP]

    order = sorted(now.values(), key=lambda s: derive_seed(0, "report", "samples", s.example))
    lost = [
        Sample(sample, before[sample.example])
        for sample in order
        if sample.score < RIGHT
        and sample.example in before
        and before[sample.example].score >= RIGHT
    ]
    return TaskSamples(
        task,
        row,
        len(now),
        all(_WITHHELD.fullmatch(sample.completion) for sample in order),
        some(lambda s: s.score >= RIGHT),
        some(lambda s: s.score < RIGHT),
        tuple(lost[:PER_GROUP]),
    )
