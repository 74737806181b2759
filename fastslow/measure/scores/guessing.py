"""Guessing: scores without reading the question, and answers that have become one answer.

The constant answer is the commonest of the train split; the uniform guess is any answer of the
train split, all alike. Both are graded by the task's grader on the examples that the matrix scores.
A score is above chance if it is above both. Pure functions; the grader is handed in.

Source: the majority-class and random-guess baselines of classification; the alarm is ours.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from fastslow.core.text import shorten
from fastslow.core.types import FULL_MARKS, Example
from fastslow.measure.stats.intervals import cluster_labels, paired_difference

MAX_ANSWERS = 50
"""Distinct answers up to which a uniform guess is graded. Source: ours, seconds per task."""
COLLAPSE_SHARE = 0.9
"""Share of the commonest answer from which on answers can count as collapsed. Source: ours."""
FEWEST = 8
"""Answers below which nothing is said about collapse. Source: ours."""
FINAL_MARK = "####"
"""What follows the last one of these is the answer, as for `graders.numeric`."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What guessing scores on the test sample of one task."""

    answer: str
    """The commonest answer of the train split, of several the first in the alphabet; untrusted."""
    constant: Mapping[str, float]
    """Score in [0, 1] of that answer, by example."""
    uniform: Mapping[str, float] | None
    """Mean score over the distinct answers of the train split, by example; None with `reason`."""
    reason: str | None
    """Why there is no uniform guess."""
    num_answers: int
    """Distinct answers of the train split."""
    num_gold: int
    """Distinct gold answers of the test sample."""

    @property
    def constant_score(self) -> float:
        """Mean score of the constant answer, in [0, 1]."""
        return fmean(self.constant.values())

    @property
    def uniform_score(self) -> float | None:
        """Mean score of the uniform guess, in [0, 1]; None where it was not graded."""
        return None if self.uniform is None else fmean(self.uniform.values())

    @property
    def best(self) -> float:
        """The better of the two, in [0, 1]: chance."""
        return max(self.constant_score, self.uniform_score or 0.0)

    def best_on(self, examples: Iterable[str]) -> float:
        """The better of the two mean scores on some of the examples; 0 on none that it knows."""
        ids = [example for example in examples if example in self.constant]
        return max(fmean(guess[e] for e in ids) for guess in self._guesses) if ids else 0.0

    def is_below(
        self, scores: Mapping[str, float], clusters: Mapping[str, str] | None = None
    ) -> bool:
        """Whether scores by example are significantly above both, paired, two-sided at 5 %.

        `clusters` has the cluster of each example that is in one.
        """
        ids = [example for example in scores if example in self.constant]
        after, labels = [scores[e] for e in ids], cluster_labels(ids, clusters or {})
        return bool(ids) and all(
            paired_difference([guess[e] for e in ids], after, labels).is_rise
            for guess in self._guesses
        )

    @property
    def _guesses(self) -> Iterator[Mapping[str, float]]:
        yield self.constant
        if self.uniform is not None:
            yield self.uniform


def guess(
    train: Iterable[Example],
    test: Sequence[Example],
    grade_all: Callable[[Sequence[tuple[Example, str]]], list[float]],
) -> Guess:
    """Grade both guesses on every example of `test`, of which there is one at least.

    `grade_all` gives the scores of answers to examples, in [0, 1]. There is no uniform guess from
    more than `MAX_ANSWERS` distinct answers, or where no answer repeats, as with programs.
    """
    counts = Counter(example.answer for example in train)
    answer = min(counts, key=lambda text: (-counts[text], text))
    scores = grade_all([(example, answer) for example in test])
    constant = {example.id: score for example, score in zip(test, scores, strict=True)}
    reason, uniform = None, None
    if len(counts) > MAX_ANSWERS:
        reason = f"train has {len(counts)} distinct answers, more than {MAX_ANSWERS}"
    elif counts[answer] == 1:
        reason = "no answer of train repeats"
    else:
        scores = grade_all([(example, text) for example in test for text in sorted(counts)])
        rows = zip(*[iter(scores)] * len(counts), strict=True)
        uniform = {example.id: fmean(row) for example, row in zip(test, rows, strict=True)}
    num_gold = len({bare(example.answer) for example in test})
    return Guess(answer, constant, uniform, reason, len(counts), num_gold)


@dataclass(frozen=True, slots=True)
class AnswerSpread:
    """How the answers to the examples of one cell of the score matrix are distributed."""

    n: int
    """Answers; >= 1."""
    answer: str
    """The commonest, as `bare` has it; untrusted."""
    count: int
    """How often it was given."""
    right: int
    """How often it got full marks."""
    distinct: int
    """Distinct answers."""
    entropy: float
    """Shannon entropy of the distribution in bits: 0 for one answer, log2(n) for all different."""

    @property
    def share(self) -> float:
        """Share of the commonest answer, in (0, 1]."""
        return self.count / self.n

    def is_collapsed(self, num_gold: int | None = None) -> bool:
        """Whether all but few answers are the same although the gold answers are not.

        That takes `FEWEST` answers, a share of `COLLAPSE_SHARE`, and fewer other answers than half
        the times that the commonest one is wrong. `num_gold` distinct gold answers, where known,
        must be two or more.
        """
        others, wrong = self.n - self.count, self.count - self.right
        has_range = self.n >= FEWEST and (num_gold is None or num_gold > 1)
        return has_range and self.share >= COLLAPSE_SHARE and others < wrong / 2


def answer_spread(answers: Iterable[tuple[str, float]]) -> AnswerSpread:
    """The distribution of completions, each with its score; at least one."""
    pairs = [(bare(text), score) for text, score in answers]
    counts = Counter(text for text, _ in pairs)
    answer = min(counts, key=lambda text: (-counts[text], text))
    n, count = len(pairs), counts[answer]
    right = sum(text == answer and score >= FULL_MARKS for text, score in pairs)
    entropy = math.fsum(c / n * math.log2(n / c) for c in counts.values())
    return AnswerSpread(n, answer, count, right, len(counts), entropy)


def collapse_sentence(task: str, spread: AnswerSpread, row: int, chance: Guess | None) -> str:
    """The alarm in words, without a full stop; what it quotes of untrusted text is printable."""
    sentence = f"{task}: {spread.count} of {spread.n} answers are {_quote(spread.answer)}"
    sentence += f" after stage {row}"
    if chance is None:
        return sentence
    score = chance.constant_score
    return f"{sentence} (a constant {_quote(chance.answer)} would score {score:.3f})"


def _quote(answer: str) -> str:
    return f"'{shorten(answer, 40)}'" if answer else "empty"


def bare(text: str) -> str:
    """An answer without what graders pass over: white space, case, a last full stop, reasoning."""
    answer = " ".join(text.rpartition(FINAL_MARK)[2].split())
    return answer.removesuffix(".").rstrip().casefold()
