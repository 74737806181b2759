"""How long a run's prompts and answers are, in tokens, from its tasks."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from fastslow.core.types import Example
from fastslow.task.definition import Task

TURN_TOKENS = 5
"""Tokens a chat template puts around a turn. Source: ChatML, whose turns take five."""
COUNTED = 64
"""Examples of a split that are counted, evenly spread: enough for a mean."""


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean tokens of the parts of a task's prompts."""

    instruction: float
    """The seed instruction's turn: what prompts of a task share before any demonstration."""
    demonstration: float
    """A training example as two turns."""
    question: float
    """The question's turn, and the opening of the answer."""
    answer: float
    """A gold answer and its end."""
    limit: int
    """Tokens of a completion at most."""

    def prompt(self, demonstrations: float) -> float:
        """What every question under a prompt with so many demonstrations shares."""
        return self.instruction + demonstrations * self.demonstration


SHORT = Lengths(instruction=30, demonstration=14, question=10, answer=3, limit=8)
"""Of a task whose data was not read: a word for a word."""


def lengths_of(task: Task, count: Callable[[str], int]) -> Lengths:
    """Mean lengths over some of a task's examples; `count` gives the tokens of a text."""

    def mean(texts: Iterable[str]) -> float:
        return fmean(map(count, texts))

    train, test = _some(task.train), _some(task.test)
    answer = mean(e.answer for e in test) + 1
    example = mean(e.question for e in train) + mean(e.answer for e in train)
    return Lengths(
        instruction=count(task.instruction) + TURN_TOKENS,
        demonstration=example + 2 * TURN_TOKENS,
        question=mean(e.question for e in test) + 2 * TURN_TOKENS,
        answer=answer,
        limit=task.max_tokens,
    )


def mean_lengths(lengths: Iterable[Lengths]) -> Lengths:
    """The mean of several tasks; `SHORT` of none."""
    of_all = list(lengths)
    if not of_all:
        return SHORT
    return Lengths(
        instruction=fmean(each.instruction for each in of_all),
        demonstration=fmean(each.demonstration for each in of_all),
        question=fmean(each.question for each in of_all),
        answer=fmean(each.answer for each in of_all),
        limit=round(fmean(each.limit for each in of_all)),
    )


def task_lengths(
    tasks: Mapping[str, Task], count: Callable[[str], int] | None
) -> dict[str, Lengths]:
    """Lengths of each task, by name; of none without a way to count."""
    return {name: lengths_of(task, count) for name, task in tasks.items()} if count else {}


def _some(examples: Sequence[Example]) -> Sequence[Example]:
    return examples[:: max(1, len(examples) // COUNTED)]
