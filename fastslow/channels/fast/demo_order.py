"""The order of demonstrations within a prompt: pure functions, seeded by the pool they come from.

A prompt is static: it shows the same demonstrations to every question. So *similar* cannot sort by
the question at hand; it sorts by similarity to the anchor problems as a whole. Ties keep the order
in which the search took the demonstrations, which is random by the run's seed.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median
from typing import TypeAlias

from fastslow.core.prompts import Demonstration

Order: TypeAlias = Callable[[Sequence[Demonstration]], tuple[Demonstration, ...]]
"""Puts demonstrations in order; the result holds the same ones."""

NGRAM = 3
"""Characters in a row that two questions are compared by."""


def as_found(demonstrations: Sequence[Demonstration]) -> tuple[Demonstration, ...]:
    """The order in which the search took them: random."""
    return tuple(demonstrations)


def by_similarity(questions: Sequence[str]) -> Order:
    """Least similar first, so that the most similar ones stand next to the question.

    Similarity is the mean over the anchor problems' questions.

    Source: demonstrations that are close to the question help most (KATE, arXiv 2101.06804), the
        order matters (arXiv 2104.08786); character overlap with a set of questions, in place of
        sentence embeddings of one, is ours.
    """
    grams = [ngrams(question) for question in questions]

    def similarity(demonstration: Demonstration) -> float:
        shown_grams = ngrams(demonstration.question)
        return fmean(overlap(shown_grams, question) for question in grams)

    return lambda demonstrations: tuple(sorted(demonstrations, key=similarity))


def by_difficulty(values: Mapping[str, float | None], *, hardest_first: bool) -> Order:
    """From easy questions to hard ones, or the reverse.

    `values` has by question what its difficulty is measured by, higher where harder. Questions
    without a value stand in the middle: they are taken for the median.

    Source: SG-ICL, "easy first" as in its code; its notes say the opposite, so both are here.
    """
    measured = [value for value in values.values() if value is not None]
    middle = median(measured) if measured else 0.0

    def difficulty(demonstration: Demonstration) -> float:
        value = values.get(demonstration.question)
        harder = middle if value is None else value
        return -harder if hardest_first else harder

    return lambda demonstrations: tuple(sorted(demonstrations, key=difficulty))


def ngrams(text: str) -> frozenset[str]:
    """Runs of `NGRAM` characters of a text, case ignored, a space at both ends."""
    padded = f" {text.casefold()} "
    return frozenset(padded[i : i + NGRAM] for i in range(max(1, len(padded) - NGRAM + 1)))


def overlap(a: frozenset[str], b: frozenset[str]) -> float:
    """Shared elements over all elements (Jaccard), in [0, 1]; neither may be empty."""
    return len(a & b) / len(a | b)
