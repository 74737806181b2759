"""Task cards: what a card must say, and the hash that ties it to data, instruction and grader.

Used by `fastslow tasks check` and the task contract tests. Cards live beside each `task.py`.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from fastslow.task import Task
from fastslow.types import Example

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

    Args:
        card: The README.md beside the task's task.py.
        task: Built with the parameters its card states the hash for.
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
    return (
        gold,
        f" {gold}\n",
        f"{gold}.",
        f"{gold}..",
        gold.upper(),
        gold.lower(),
        f"The answer is {gold}",
        gold[:-1],
        "",
        "0",
    )
