"""A few completions of each task at the end of a run: right, wrong, and lost since it was learned.

Completions are untrusted text; the page makes them visible.
"""

import re
from dataclasses import dataclass
from typing import TypeAlias

from fastslow.core.seeds import derive_seed
from fastslow.core.types import SampleScore
from fastslow.records.cells import CellKey
from fastslow.results.report.section import Records, Section

PER_GROUP = 3
"""Completions of each kind."""
RIGHT = 0.5
"""Scores from here on count as right. Source: ours, for graded scores."""
_WITHHELD = re.compile(r"\(withheld, \d+ characters\)")
"""Stands for a text that was taken out of a kept run."""
CellSamples: TypeAlias = dict[str, SampleScore]
"""The first completion of each example of one cell."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A graded completion, and that of the same example when the task had just been learned."""

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


class Completions(Section):
    """Completions of every scored task, chosen by a hash of their names, not by their looks."""

    chapter = "completions"

    def __init__(self, records: Records) -> None:
        cells, self.samples = dict[CellKey, CellSamples](), list[TaskSamples]()
        for line in records.scores:
            if line.cycle is None and (sample := line.sample).sample == 0:
                key = (line.row, sample.task, sample.prompt_policy)
                cells.setdefault(key, {})[sample.example] = sample
        for column, task in enumerate(records.card.tasks):
            keys = [(i, task, row[column].prompt_policy) for i, row in enumerate(records.cells)]
            measured = [key for key in keys if key in cells]
            if measured:
                learned = records.table.learned_row(task)
                before = {} if learned is None else cells.get(keys[learned], {})
                samples = _task_samples(task, measured[-1][0], cells[measured[-1]], before)
                self.samples.append(samples)


def _task_samples(task: str, row: int, now: CellSamples, before: CellSamples) -> TaskSamples:
    order = sorted(now.values(), key=lambda s: derive_seed(0, "report", "samples", s.example))
    right = [Sample(sample) for sample in order if sample.score >= RIGHT]
    wrong = [Sample(sample) for sample in order if sample.score < RIGHT]
    lost = [
        Sample(sample.now, learned)
        for sample in wrong
        if (learned := before.get(sample.now.example)) is not None and learned.score >= RIGHT
    ]
    return TaskSamples(
        task,
        row,
        len(now),
        all(_WITHHELD.fullmatch(sample.completion) for sample in order),
        *(tuple(group[:PER_GROUP]) for group in (right, wrong, lost)),
    )
