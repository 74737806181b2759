"""Lengths in tokens from a model's folder alone: without torch, weights or chat template."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastslow.core.errors import ModelError
from fastslow.core.files import read_json
from fastslow.core.text import shorten
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


def context_length(config: Mapping[str, Any]) -> int | None:
    """Most tokens of prompt and completion together, by a model's config.json; None if unsaid.

    Of a model whose positions are scaled differently beyond an original length, that length: a
    longer row would change the log-probabilities of its own beginning and of its neighbours.
    """
    config = config.get("text_config") or config
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    lengths = [config.get("max_position_embeddings"), config.get("n_positions")]
    if rope.get("rope_type", rope.get("type")) in ("longrope", "dynamic"):
        name = "original_max_position_embeddings"
        lengths.append(rope.get(name) or config.get(name))
    return min((length for length in lengths if isinstance(length, int)), default=None)


class TokenCounter:
    """Counts tokens as the model in a folder does; `ModelError` where its tokenizer is not fast."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._tokenizer.no_truncation()
            context = context_length(read_json(folder / "config.json"))
        except Exception as error:  # the library raises nothing more special
            raise ModelError(
                f"model.name: {folder} has no tokenizer.json or config.json that can be read, got "
                f"{type(error).__name__}: {shorten(str(error), 120)}; tokens are not counted."
            ) from error
        self.context = context
        """Tokens the model reads; None where its files do not say."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without special ones."""
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        return [len(encoding.ids) for encoding in encodings]

    def tokens(self, text: str) -> int:
        """Tokens of one text."""
        return self.count([text])[0]

    def lengths(self, task: Task) -> TaskLengths:
        """What a task asks for."""
        examples = (*task.train, *task.validation, *task.test)
        longest = _longest(examples, lambda example: example.question)
        sizes = self.count([example.question for example in longest])
        size, place = max((size, -place) for place, size in enumerate(sizes))
        answers = _longest(examples, lambda example: example.answer)
        return TaskLengths(
            instruction=self.count([task.instruction])[0],
            question=size,
            example=longest[-place],
            answer=max(self.count([example.answer for example in answers])) + 1,
            context=self.context,
            max_tokens=task.max_tokens,
        )


def _longest(examples: Sequence[Example], text: Callable[[Example], str]) -> list[Example]:
    """The examples whose texts have most bytes, each text once."""
    distinct = {text(example): example for example in examples}
    return heapq.nlargest(
        COUNTED, distinct.values(), key=lambda e: len(text(e).encode(errors="replace"))
    )
