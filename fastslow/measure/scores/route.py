"""Routes between two arms: which questions are sent on, what that scores and what it costs.

Functions of numbers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Answers:
    """One way to answer the same questions, one number for each."""

    scores: Sequence[float]
    """In [0, 1], higher is better."""
    tokens: Sequence[float]
    """Prompt tokens that go through the model."""


def shares_sent(values: Sequence[float], share: float) -> list[float]:
    """What of each question goes to the strong arm: 1, 0, or a part where values are equal.

    The hardest `share` of all go, rounded half up to whole questions. Where equal values straddle
    that border each goes in the same part, which gives the mean over all orders of them. The sum is
    the number of questions that go; at least one value, all finite.
    """
    num_sent = math.floor(share * len(values) + 0.5)
    border = sorted(values, reverse=True)[max(0, num_sent - 1)]
    above, equal = sum(v > border for v in values), sum(v == border for v in values)
    part = (num_sent - above) / equal
    return [1.0 if v > border else part if v == border else 0.0 for v in values]


def mixture(cheap: Answers, strong: Answers, sent: Sequence[float], *, are_read: bool) -> Answers:
    """What the questions score and cost if `sent` of each goes to the strong arm.

    `are_read`: the signal that decides is read under the cheap prompt first, so a question that is
    sent on goes through the model under both prompts.
    """
    scores = zip(sent, cheap.scores, strong.scores, strict=True)
    tokens = zip(sent, cheap.tokens, strong.tokens, strict=True)
    return Answers(
        [(1 - part) * low + part * high for part, low, high in scores],
        [(1.0 if are_read else 1 - part) * low + part * high for part, low, high in tokens],
    )
