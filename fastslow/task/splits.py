"""Cutting rows into the three splits of a task: seeded, balanced, without repeats."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from fastslow.core.errors import TaskError
from fastslow.core.seeds import named_random
from fastslow.core.types import Example

Item = TypeVar("Item")


class _HasAnswer(Protocol):
    @property
    def answer(self) -> str: ...


Answered = TypeVar("Answered", bound=_HasAnswer)
"""An example, or a demonstration made of one."""


class Splits(NamedTuple):
    """The three splits of a task, ready for `Task(*splits, ...)`."""

    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]


def content_id(text: str) -> str:
    """Twelve hex digits of the SHA-256 of `text`: an example id that survives reordering."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]


def balanced_order(items: Iterable[tuple[Item, str]], seed: int, *names: str) -> list[Item]:
    """Shuffle items so that every beginning of the result holds the labels in proportion.

    Among the first n, each label appears n times its share, to within 1. The result depends on the
    order of `items`, so sort them first if that may vary; `names` as in `derive_seed`.
    """
    shuffled = list(items)
    named_random(seed, "balanced_order", *names).shuffle(shuffled)
    totals, seen = Counter(label for _, label in shuffled), Counter[str]()
    placed: list[tuple[float, Item]] = []
    for item, label in shuffled:
        placed.append(((seen[label] + 0.5) / totals[label], item))
        seen[label] += 1
    return [item for _, item in sorted(placed, key=lambda pair: pair[0])]


def facts_to_splits(facts: Mapping[str, str], *, validation: int, test: int, seed: int) -> Splits:
    """Cut a table of facts, question to answer, into three balanced splits.

    The question is the example's id, so it must be short; the order of facts does not matter. Train
    gets what `validation` and `test` examples leave.

    Raises:
        TaskError: Fewer facts than the two splits take.
    """
    if len(facts) <= validation + test:
        raise TaskError(
            f"{len(facts)} facts cannot give {validation} validation and {test} test examples "
            "and leave some for train. Ask for fewer, or give more facts."
        )
    examples = [Example(id=q, question=q, answer=a) for q, a in sorted(facts.items())]
    ordered = balanced_order(((e, e.answer) for e in examples), seed, "facts")
    return Splits(
        test=tuple(ordered[:test]),
        validation=tuple(ordered[test : test + validation]),
        train=tuple(ordered[test + validation :]),
    )


def without_repeats(examples: Sequence[Example], taken: set[str]) -> list[Example]:
    """The examples whose question is not in `taken`, each question once; adds them to `taken`."""
    unique = []
    for example in examples:
        if example.question not in taken:
            taken.add(example.question)
            unique.append(example)
    return unique


def spread_answers(pool: Sequence[Answered]) -> list[Answered]:
    """The pool in rounds: each distinct answer once, then each again, else in the same order.

    Demonstrations are taken from the front. Four that share one answer teach a small model to give
    that answer always; four different ones show the convention.
    """
    seen: Counter[str] = Counter()
    rounds = []
    for example in pool:
        rounds.append(seen[example.answer])
        seen[example.answer] += 1
    order = sorted(range(len(pool)), key=lambda i: rounds[i])
    return [pool[i] for i in order]
