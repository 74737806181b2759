"""Refuses new prompts that are too long, garbage, or a copy of the answers, whatever they score.

Prompts come from language models and are not trusted. Old ones are not judged again.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from fastslow.core.prompts import Demonstration, PromptProgram
from fastslow.core.text import ngram_repetition, visible
from fastslow.core.types import Example

Cause: TypeAlias = Literal[
    "garbage", "too_long", "too_many_tokens", "answer_key", "duplicate", "not_better"
]
"""Why a prompt does not enter the population."""
CAUSES: tuple[Cause, ...] = get_args(Cause)

MAX_COPIED = 2
"""Scored problems whose question and answer a prompt may contain: a coincidence or two, since
answers are often words of the instruction anyway."""
MAX_REPETITION = 0.5
"""Share of an instruction's 4-grams of words that may repeat earlier ones."""
ECHOES = (
    "[[ ##",
    "new_instruction",
    "current_instruction",
    "examples_with_feedback",
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
)
"""Signs that a small model copied the request instead of answering it."""
_WRITTEN = re.compile(
    "\U0001f3f4[\U000e0061-\U000e007f]+|\r\n|[\t\n\xad\ufeff\u200c-\u200f\U0001f000-\U0001faff]"
)
"""Characters without a glyph of their own that people write: tab and line breaks, the joiners and
direction marks of Persian, Hindi or Hebrew, soft hyphens, emoji (newer than Python's tables too)
and flags of regions."""


@dataclass(frozen=True)
class Guard:
    """The limits of one fast phase."""

    max_instruction_chars: int
    """Longest instruction, in characters."""
    max_prompt_tokens: int | None
    """Longest prompt with its answer, in tokens; None when the model has no limit."""
    count_tokens: Callable[[PromptProgram], int]
    """Tokens of the prompt with the longest question, and of the answer."""
    scored_on: Sequence[Example]
    """The problems that prompts are scored on, whose answers none may show."""

    def cause(self, program: PromptProgram, has_new_instruction: bool) -> Cause | None:
        """Why this prompt is refused, or None; an instruction of an old prompt is not judged."""
        if has_new_instruction and is_garbage(program.instruction):
            return "garbage"
        if has_new_instruction and len(program.instruction) > self.max_instruction_chars:
            return "too_long"
        judged = program if has_new_instruction else replace(program, instruction="")
        if copied_answers(judged, self.scored_on) > MAX_COPIED:
            return "answer_key"
        limit = self.max_prompt_tokens
        if limit is not None and self.count_tokens(program) > limit:
            return "too_many_tokens"
        return None


def identity(program: PromptProgram) -> tuple[str, tuple[Demonstration, ...]]:
    """Equal for prompts that differ only in letter case and white space of the instruction."""
    return " ".join(program.instruction.casefold().split()), program.demonstrations


def is_garbage(instruction: str) -> bool:
    """Whether an instruction is a failure of the language model that wrote it.

    Empty, in a loop, left in braces, repeating the request, or with characters that have no glyph.
    """
    text = instruction.strip()
    if not any(char.isalnum() for char in text):
        return True
    if text.startswith(("{", "```")) or any(echo in text for echo in ECHOES):
        return True
    return visible(_WRITTEN.sub(" ", text)) != _WRITTEN.sub(" ", text) or is_loop(text)


def is_loop(text: str) -> bool:
    """Whether more than `MAX_REPETITION` of its 4-grams of words occur earlier in it."""
    numbers: dict[str, int] = {}
    words = [numbers.setdefault(word, len(numbers)) for word in text.split()]
    return (ngram_repetition(words) or 0.0) > MAX_REPETITION


def copied_answers(program: PromptProgram, examples: Sequence[Example]) -> int:
    """Number of `examples` whose question and answer the prompt contains, as whole words.

    They count in the instruction, and as a demonstration of the same question.
    """
    demonstrated = {_plain(demonstration.question) for demonstration in program.demonstrations}
    instruction = _plain(program.instruction)
    return sum(
        _plain(example.question) in demonstrated
        or (_occurs_in(example.question, instruction) and _occurs_in(example.answer, instruction))
        for example in examples
    )


def _occurs_in(part: str, text: str) -> bool:
    plain = _plain(part)
    return bool(plain) and re.search(rf"(?<!\w){re.escape(plain)}(?!\w)", text) is not None


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
