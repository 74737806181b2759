"""What a fast optimizer is, and a sequence of them. One bridge module per optimizer of DSPy."""

from collections.abc import Sequence
from typing import Protocol

from fastslow.channels.fast.pool import Pool
from fastslow.channels.fast.scorer import TextScorer
from fastslow.core.seeds import derive_seed


class Optimizer(Protocol):
    """Makes new prompts out of those of a pool, within the scorer's budget."""

    def search(self, scorer: TextScorer, pool: Pool, seed: int) -> None:
        """Offer new prompts to the pool, scored on the anchor set.

        Draws at most `scorer.remaining` rollouts. A reflection model that stays away ends the
        search; prompts that have entered by then stay. The pool holds the old prompts, re-scored.
        """
        ...


class SequenceSearch:
    """One optimizer after another, each starting from the pool that the earlier ones left.

    Each has its share of the budget; the next step gets what is not spent.
    """

    def __init__(self, steps: Sequence[tuple[float, Optimizer]]) -> None:
        self.steps = tuple(steps)

    def search(self, scorer: TextScorer, pool: Pool, seed: int) -> None:
        """See `Optimizer.search`."""
        limit, budget, start, due = scorer.limit, scorer.remaining, scorer.spent, 0.0
        for index, (share, step) in enumerate(self.steps):
            due += share
            scorer.limit = start + int(round(due, 9) * budget)
            step.search(scorer, pool, derive_seed(seed, "step", index))
        scorer.limit = limit
