"""The claims of Fast-Slow Training put to the test on an ablation: yes, no, or not decidable.

Pure functions on run records of two arms, the one with both channels and the one with the slow
channel alone. An answer needs an interval: yes when all of it is on the claim's side, no when all
of it is on the other, else not decidable, with the power that this design had to find the goal.

Source of the claims: Fast-Slow Training, arXiv 2605.12484; how they are measured is ours.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

from fastslow.measure.scores.per_example import final_scores, later_gains
from fastslow.measure.stats.significance import SignFlip, holm, sign_flip
from fastslow.results.ablation.claim_measures import (
    PLASTIC,
    Effect,
    kl_ratio,
    plasticity_share,
    score_difference,
)
from fastslow.results.ablation.records import RunRecord
from fastslow.results.ablation.rollouts_to_best import rollouts_to_best

SCORE_GOAL = 0.05
"""Difference of scores that an ablation is asked to find. Source: ours."""
Answer: TypeAlias = Literal["yes", "no", "not decidable"]


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim and its answer."""

    name: str
    statement: str
    answer: Answer
    effect: float | None
    """In `unit`; None where it has no value."""
    low: float | None
    """Lower end of the effect's 95 % interval."""
    high: float | None
    boundary: float
    """The effect on whose one side the claim holds."""
    unit: str
    detectable: float | None
    """The smallest distance from `boundary` that would be found with 80 % power: in `unit`, or for
    ratios a factor."""
    reason: str | None
    """Why there is no effect or no interval."""
    test: SignFlip | None
    """Sign-flip test of the seeds' distances from `boundary`."""
    holm: float | None
    """Its p-value, adjusted for all claims."""
    numbers: Mapping[str, float | None]
    """The figures that the answer rests on, by name."""
    goal: float
    """The effect, in `unit`, that the design is asked to find."""
    power: float | None
    """Probability that a design like this one, with the spread observed, says yes where the true
    effect is `goal`; in [0, 1], None without an interval over seeds."""

    @property
    def answer_text(self) -> str:
        """The answer; where it is not decidable, with what could have been found."""
        if self.answer != "not decidable" or self.power is None:
            return self.answer
        goal = f"{self.goal:+.2f}" if self.unit == "score" else f"{self.goal:g}"
        return f"{self.answer} (power {self.power:.2f} for {goal})"


class Question(NamedTuple):
    """A claim before it is put to the test."""

    name: str
    statement: str
    unit: str
    measure: Callable[[Sequence[RunRecord], Sequence[RunRecord], float], Effect]
    goal: float
    """As `Claim.goal`. Source: ours."""
    boundary: float = 0.0
    side: Literal["above", "from", "below"] = "above"
    """Where the whole interval must lie; `from` includes the boundary."""


QUESTIONS = (
    Question(
        "sample_efficiency",
        "Needs fewer slow rollouts for the same score.",
        "ratio of slow rollouts",
        rollouts_to_best,
        1 / 4,
        1.0,
        "below",
    ),
    Question(
        "higher_score",
        "Ends with a higher average score at the same budget.",
        "score",
        partial(score_difference, values_of=final_scores),
        SCORE_GOAL,
    ),
    Question(
        "lower_kl",
        "Stays nearer to the base at equal score.",
        "ratio of kl_fst",
        kl_ratio,
        1 / 2,
        1.0,
        "below",
    ),
    Question(
        "plasticity",
        f"Keeps at least {PLASTIC} of the base's gain on a new task.",
        "share of the base's gain",
        plasticity_share,
        1.0,
        PLASTIC,
        "from",
    ),
    Question(
        "continued_acquisition",
        "Goes on acquiring: later tasks gain more in their own stages.",
        "score",
        partial(score_difference, values_of=later_gains),
        SCORE_GOAL,
    ),
)
"""Every claim, in the order of the paper's abstract."""


def put_to_the_test(records: Sequence[RunRecord], fast_slow: str, slow_only: str) -> list[Claim]:
    """Every claim of `QUESTIONS` with its answer, from the finished runs of an ablation.

    `fast_slow` is the arm with both channels, `slow_only` that with the slow channel alone, or
    under one frozen text, at the same budget.
    """
    both = [run for run in records if run.arm == fast_slow]
    slow = [run for run in records if run.arm == slow_only]
    claims = [put(question, both, slow) for question in QUESTIONS]
    adjusted = holm({claim.name: claim.test.p_value for claim in claims if claim.test})
    return [replace(claim, holm=adjusted.get(claim.name)) for claim in claims]


def put(question: Question, both: Sequence[RunRecord], slow: Sequence[RunRecord]) -> Claim:
    """One claim with its answer: on which side of the boundary does the interval lie?"""
    effect = question.measure(both, slow, question.goal)
    low, high, boundary = effect.low, effect.high, question.boundary
    may_touch = effect.excludes_ends or question.side == "from"
    is_above = low is not None and (low > boundary or (may_touch and low == boundary))
    is_below = high is not None and (high < boundary or (effect.excludes_ends and high == boundary))
    answer: Answer = "not decidable"
    if effect.is_decidable and (is_above or is_below):
        answer = "yes" if is_above == (question.side != "below") else "no"
    return Claim(
        name=question.name,
        statement=question.statement,
        answer=answer,
        effect=effect.value,
        low=low,
        high=high,
        boundary=boundary,
        unit=question.unit,
        detectable=effect.detectable,
        reason=effect.reason,
        test=sign_flip(effect.distances),
        holm=None,
        numbers=effect.numbers,
        goal=question.goal,
        power=effect.power,
    )
