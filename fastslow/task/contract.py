"""The promises of every task beyond its splits, checked on its own examples."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

from fastslow.core.errors import TaskError
from fastslow.core.text import shorten
from fastslow.core.types import Example
from fastslow.task.definition import Task
from fastslow.task.grading_process import RETURNED, graded
from fastslow.task.guarded_grader import GuardedGrader

SECTIONS = (
    "What it asks",
    "Source and licence",
    "Sizes",
    "Grader",
    "Known weaknesses",
    "Base-model score",
    "Change log",
)
"""Second-level headings of a card, in order."""

_PROBED = 4
"""Examples per split on which the grader's behaviour enters the hash."""


def content_hash(task: Task) -> str:
    """Twelve hex digits over what a score depends on: data, instruction, grader, token limit.

    The grader enters by its behaviour on fixed completions, not by its source text. Metadata is
    left out, since it may name files.
    """
    splits = (task.train, task.validation, task.test)
    content = [
        task.instruction,
        task.max_tokens,
        [[[e.id, e.question, e.answer] for e in split] for split in splits],
        [
            [task.grade(example, text).score for text in _completions(example)]
            for split in splits
            for example in split[:_PROBED]
        ],
    ]
    canonical = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def card_problems(card: Path, task: Task) -> Iterator[str]:
    """Yield what is wrong with a card: a section missing, or no line for this version's content.

    The task is to be built with the parameters that its card states the hash for.
    """
    text = card.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+?)\s*$", text, re.MULTILINE)
    if headings != list(SECTIONS):
        yield f"{card}: sections are {headings}. Expected {list(SECTIONS)}."
    recorded = dict(re.findall(r"^- `(\w+@\d+)`, content `([0-9a-f]{12})`", text, re.MULTILINE))
    actual = content_hash(task)
    if task.version not in recorded:
        yield (
            f"{card}: the change log has no entry for {task.version}. "
            f"Add: - `{task.version}`, content `{actual}`: what changed."
        )
    elif recorded[task.version] != actual:
        yield (
            f"{card}: data, instruction or grader of {task.version} changed: the content is "
            f"{actual}, the card says {recorded[task.version]}. Raise the task's version and add "
            "an entry to the change log."
        )


def _completions(example: Example) -> tuple[str, ...]:
    gold = example.answer
    alike = (gold, f" {gold}\n", f"{gold}.", f"{gold}..", gold.upper(), gold.lower())
    return (*alike, f"The answer is {gold}", gold[:-1], "", "0")


def with_checked_grader(task: Task) -> Task:
    """The task, whose guarded grader was tried on gold and junk answers of a few examples.

    A gold answer with less than full marks becomes a note. A grader that raises or hangs is left
    to its guard, which counts.

    Raises:
        TaskError: The grader answered with something other than a grade; shows it.
    """
    assert isinstance(task.grade, GuardedGrader)
    poor = []
    examples = (*task.train[:2], *task.validation[:1], *task.test[:1])
    answers = [(example, text) for example in examples for text in (example.answer, *JUNK[:3])]
    with closing(task.grade.attempts(answers)) as grades:
        for (example, completion), grade in zip(answers, grades, strict=True):
            if isinstance(grade, str):
                if not grade.startswith(RETURNED):
                    return task
                raise TaskError(
                    f"task {task.name}: its grader {grade}, for the answer "
                    f"{shorten(completion, 60)!r} to example {shorten(example.id, 60)!r}. Expected "
                    "a Grade: a score from 0 to 1 (divide percents by 100) and a reason in words. "
                    "`fastslow tasks check` tests all that a task promises."
                )
            if completion == example.answer and grade.score < 1:
                poor.append(f"{grade.score:g} to {shorten(completion, 60)!r}")
    if not poor:
        return task
    note = f"the grader gives gold answers less than full marks: {', '.join(poor)}."
    return replace(task, notes=(*task.notes, note))


JUNK = ("", " \n", "qzx", "I do not know.", "\x00\u202e\ud800", "1" * 5000, "[]{}()\\**??")
"""Completions that answer nothing; a grader must give them 0 and must not raise."""


def contract_failures(task: Task) -> Iterator[str]:
    """Yield one sentence for every promise that `task` breaks; the first example of each kind.

    Checked on all examples: the gold answer scores exactly 1.0. Checked on the first ten of each
    split: junk scores exactly 0.0. The grader may raise on neither.
    """
    if task.max_tokens < 1:
        yield f"max_tokens is {task.max_tokens}, expected at least 1"
    for split in ("train", "validation", "test"):
        examples: tuple[Example, ...] = getattr(task, split)
        golds = (_wrong_score(task, split, example, example.answer, 1.0) for example in examples)
        yield from islice(filter(None, golds), 1)
        for junk in JUNK:
            complaints = (
                _wrong_score(task, split, example, junk, 0.0)
                for example in examples[:10]
                if junk.strip() != example.answer.strip()
            )
            yield from islice(filter(None, complaints), 1)


def _wrong_score(
    task: Task, split: str, example: Example, completion: str, expected: float
) -> str | None:
    kind = "the gold answer" if expected else "junk"
    where = f"{split} example {shorten(example.id, 60)!r}: {kind} {shorten(completion, 60)!r}"
    grade = graded(task.grade, example, completion)
    if isinstance(grade, str):
        return f"{where}: the grader {grade}"
    if grade.score == expected:
        return None
    return f"{where} scored {grade.score}, expected {expected} ({shorten(grade.reason, 120)})"
