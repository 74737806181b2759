"""Tasks with a closed set of answers: whether the instruction lists them, and how answers are read.

A task that is graded to the letter under an instruction that hides the answers gives a policy that
has no prompt yet no reward to learn from; `options: listed` and `grader: mention` give it some.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, TypeAlias

from fastslow.core.errors import TaskError
from fastslow.core.types import Example, Grade
from fastslow.task.definition import Grader, TaskConfig
from fastslow.task.graders import CORRECT, exact_match, quote

Words: TypeAlias = tuple[str, ...]
"""Of a text: NFC, case-folded, without punctuation."""

_WORD = re.compile(r"[^\W_]+")
_PLURAL_LETTERS = 4
"""Shortest singular that is taken for its plural, so that "new" is not "news"."""


class ChoiceConfig(TaskConfig):
    """Parameters that every task with a closed set of answers has."""

    options: Literal["hidden", "listed"] = "hidden"
    """Whether the seed instruction lists the answers. Hidden, the channels are to find them."""
    grader: Literal["exact_match", "mention"] = "exact_match"
    """`exact_match`: the answer alone, to the letter. `mention`: exactly one of the answers is
    named, in whatever words."""

    @property
    def variant(self) -> str:
        """Of the two, what is not the default, so that their scores are never compared."""
        listed = "+listed" if self.options == "listed" else ""
        return listed + ("+mention" if self.grader == "mention" else "")

    def instructed(self, instruction: str, answers: Iterable[str]) -> str:
        """A seed instruction, with the answers behind it if they are listed."""
        if self.options == "hidden":
            return instruction
        return f"{instruction} Options: {', '.join(answers)}."

    def grader_of(self, answers: Iterable[str]) -> Grader:
        """The grader of a task with these answers.

        Raises:
            TaskError: See `mention`.
        """
        return mention(answers) if self.grader == "mention" else exact_match


def mention(answers: Iterable[str]) -> Grader:
    """A grader that scores 1 if a text names the gold answer and no other answer, 0 otherwise.

    Whole words count, whatever their capitals and the punctuation between them; a singular counts
    as its plural and the other way about. Where one answer is part of another (`positive`, `very
    positive`) the longest that fits is the one named. Negations are not understood.

    Raises:
        TaskError: Two answers cannot be told apart, or one has no letter or digit.
    """
    answers = tuple(dict.fromkeys(answers))
    names = {answer: _words(answer) for answer in answers}
    for answer, words in names.items():
        if not words:
            raise TaskError(
                f"grader: mention reads words, and the answer {quote(answer)} has none. "
                "Use exact_match."
            )
    for first, second in itertools.combinations(answers, 2):
        if _is_alike(names[first], names[second]):
            raise TaskError(
                f"grader: mention cannot tell {quote(first)} from {quote(second)}: it looks at "
                "neither capitals, punctuation nor plurals. Use exact_match."
            )

    def grade(example: Example, text: str) -> Grade:
        gold = next((a for a in answers if _is_alike(names[a], _words(example.answer))), None)
        named = sorted(set(_named(_words(text), names)))
        truth = f"answer is {quote(example.answer)}"
        if named == [gold]:
            return Grade(1.0, CORRECT)
        if not named:
            return Grade(0.0, f"Name one of the answers, not {quote(text)}; the {truth}.")
        if len(named) > 1:
            several = " and ".join(map(quote, named[:3]))
            return Grade(0.0, f"Name one answer alone, not {several}; the {truth}.")
        return Grade(0.0, f"The {truth}, not {quote(named[0])}.")

    return grade


def _words(text: str) -> Words:
    return tuple(_WORD.findall(unicodedata.normalize("NFC", text).casefold()))


def _named(words: Words, names: Mapping[str, Words]) -> Iterator[str]:
    """The answers named in a text, from left to right; of those at one place the longest."""
    longest_first = sorted(names, key=lambda answer: -len(names[answer]))
    place = 0
    while place < len(words):
        for answer in longest_first:
            size = len(names[answer])
            if _is_alike(words[place : place + size], names[answer]):
                yield answer
                place += size
                break
        else:
            place += 1


def _is_alike(first: Words, second: Words) -> bool:
    return len(first) == len(second) and all(map(_is_same_word, first, second))


def _is_same_word(first: str, second: str) -> bool:
    singular, plural = sorted((first, second), key=len)
    if len(singular) < _PLURAL_LETTERS:
        return first == second
    return plural in (singular, f"{singular}s", f"{singular}es")
