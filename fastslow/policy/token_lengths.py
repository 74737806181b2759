"""Lengths in tokens from a model's folder alone: without torch, weights or chat template."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastslow.core.files import is_file, read_json
from fastslow.core.types import Example
from fastslow.task.definition import Task

COUNTED = 64
"""Longest texts, in bytes, that are counted in tokens; the longest in tokens is among them."""


@dataclass(frozen=True, slots=True)
class TaskLengths:
    """What a task asks of a model's context, in tokens, without those of the chat template."""

    instruction: int
    question: int
    """Of the longest question."""
    example: Example
    """The example it belongs to."""
    answer: int
    """Of the longest gold answer, with a stop token."""
    context: int | None
    """What the model reads; None where its files do not say."""
    max_tokens: int
    """See `Task.max_tokens`."""

    @property
    def needed(self) -> int:
        """Tokens of the longest prompt with the longest completion, at least."""
        return self.instruction + self.question + self.max_tokens


def task_lengths(folder: Path, task: Task) -> TaskLengths | None:
    """Count a task's texts with the tokenizer in a model's folder; None where there is none."""
    if not is_file(folder / "tokenizer.json"):
        return None
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        context = read_json(folder / "config.json").get("max_position_embeddings")
    except Exception:  # the loader says what is wrong with a folder; a count needs no opinion
        return None

    def count(texts: Sequence[str]) -> list[int]:
        return [len(e.ids) for e in tokenizer.encode_batch(texts, add_special_tokens=False)]

    examples = (*task.train, *task.validation, *task.test)
    longest = _longest(examples, lambda example: example.question)
    sizes = count([example.question for example in longest])
    size, place = max((size, -place) for place, size in enumerate(sizes))
    answers = _longest(examples, lambda example: example.answer)
    return TaskLengths(
        instruction=count([task.instruction])[0],
        question=size,
        example=longest[-place],
        answer=max(count([example.answer for example in answers])) + 1,
        context=context if isinstance(context, int) else None,
        max_tokens=task.max_tokens,
    )


def _longest(examples: Sequence[Example], text: Callable[[Example], str]) -> list[Example]:
    """The examples whose texts have most bytes, each text once."""
    distinct = {text(example): example for example in examples}
    return heapq.nlargest(
        COUNTED, distinct.values(), key=lambda e: len(text(e).encode(errors="replace"))
    )
