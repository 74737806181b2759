"""What a built task holds, in figures: for people, before, during and after a run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastslow.core.types import Example
from fastslow.task.definition import Task

MAX_ANSWERS = 64
"""Distinct answers up to which they are taken for classes and counted one by one."""


@dataclass(frozen=True, slots=True)
class SplitSummary:
    """One split in figures."""

    examples: int
    answers: int
    """Distinct gold answers."""
    classes: Mapping[str, int]
    """Examples by answer, most first; empty where there are over `MAX_ANSWERS` answers."""
    longest: int
    """Characters of the longest question."""

    @property
    def majority(self) -> tuple[str, float] | None:
        """The most frequent answer and its share in (0, 1]: the score of always giving it."""
        answer = next(iter(self.classes), None)
        return None if answer is None else (answer, self.classes[answer] / self.examples)


@dataclass(frozen=True, slots=True)
class DataSummary:
    """A task's data in figures, with the notes of whoever read it."""

    task: str
    version: str
    train: SplitSummary
    validation: SplitSummary
    test: SplitSummary
    notes: tuple[str, ...] = ()
    """See `Task.notes`."""

    @property
    def splits(self) -> dict[str, SplitSummary]:
        """The three by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def summarize(task: Task) -> DataSummary:
    """The figures of a task."""
    train, validation, test = map(_split, (task.train, task.validation, task.test))
    return DataSummary(task.name, task.version, train, validation, test, task.notes)


def _split(examples: Sequence[Example]) -> SplitSummary:
    answers = Counter(example.answer for example in examples)
    classes = sorted(answers.items(), key=lambda pair: (-pair[1], pair[0]))  # ties as in `guess`
    return SplitSummary(
        len(examples),
        len(answers),
        dict(classes) if len(classes) <= MAX_ANSWERS else {},
        max(len(example.question) for example in examples),
    )
