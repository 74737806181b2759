"""What every task promises beyond its splits, checked on its own examples.

`Task` itself refuses empty and overlapping splits when it is built; this asks its grader. Called by
`fastslow tasks check` and by the contract tests.
"""

from collections.abc import Iterator

from fastslow.task import Task
from fastslow.text import shorten
from fastslow.types import Example

JUNK = ("", " \n", "qzx", "I do not know.", "\x00\u202e\ud800", "1" * 5000, "[]{}()\\**??")
"""Completions that answer nothing; a grader must give them 0 and must not raise."""


def contract_failures(task: Task) -> Iterator[str]:
    """Yield one sentence for every promise that `task` breaks; the first example of each kind.

    Checked on all examples: the gold answer scores exactly 1.0. Checked on the first ten of each
    split: junk scores exactly 0.0. The grader may raise on neither.

    Args:
        task: A task that was built, so its splits are known to be disjoint.
    """
    if task.max_tokens < 1:
        yield f"max_tokens is {task.max_tokens}, expected at least 1"
    for split in ("train", "validation", "test"):
        examples: tuple[Example, ...] = getattr(task, split)
        yield from _first(
            _wrong_score(task, split, example, example.answer, 1.0) for example in examples
        )
        for junk in JUNK:
            yield from _first(
                _wrong_score(task, split, example, junk, 0.0)
                for example in examples[:10]
                if junk.strip() != example.answer.strip()
            )


def _first(complaints: Iterator[str | None]) -> Iterator[str]:
    complaint = next((text for text in complaints if text), None)
    if complaint:
        yield complaint


def _wrong_score(
    task: Task, split: str, example: Example, completion: str, expected: float
) -> str | None:
    kind = "the gold answer" if expected else "junk"
    said = f"{split} example {shorten(example.id, 60)!r}: {kind} {shorten(completion, 60)!r}"
    try:
        grade = task.grade(example, completion)
    except Exception as err:  # a task's own code: whatever it raises is its failure
        return f"{said} made the grader raise {type(err).__name__}: {shorten(str(err), 120)}"
    if grade.score == expected:
        return None
    return f"{said} scored {grade.score}, expected {expected} ({shorten(grade.reason, 120)})"
