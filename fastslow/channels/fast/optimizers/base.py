"""What a fast optimizer is, and a sequence of them. One bridge module per optimizer of DSPy.

An optimizer proposes; who enters and who stays is decided elsewhere (`pool.py`, `channel.py`), by
the same rules for all.
"""

from collections.abc import Sequence
from typing import Protocol

from fastslow.channels.fast.pool import Pool
from fastslow.channels.fast.scorer import TextScorer
from fastslow.core.seeds import derive_seed


class Optimizer(Protocol):
    """Makes new texts out of those of a pool, within the scorer's budget."""

    def proposals(self, rollouts: int, anchor: int, pool: int, old: int) -> int:
        """Texts that `rollouts` certainly pay for.

        Args:
            rollouts: The budget, after old texts were re-scored.
            anchor: Problems that a text is scored on.
            pool: Examples that may be shown.
            old: Texts it starts from.
        """
        ...

    def search(self, scorer: TextScorer, pool: Pool, seed: int) -> None:
        """Offer new texts to the pool, scored on the anchor set.

        Draws at most `scorer.left` rollouts. A reflection model that stays away ends the search;
        what has entered by then stays.

        Args:
            scorer: Asks the policy.
            pool: Holds the old texts, re-scored; takes or refuses new ones.
            seed: Of every draw.
        """
        ...


class SequenceSearch:
    """One optimizer after another, each starting from what the earlier ones left.

    Args:
        steps: Share of the budget and optimizer, in order; what a step does not spend is left to
            the next.
    """

    def __init__(self, steps: Sequence[tuple[float, Optimizer]]) -> None:
        self.steps = tuple(steps)

    def proposals(self, rollouts: int, anchor: int, pool: int, old: int) -> int:
        """See `Optimizer.proposals`."""
        return sum(s.proposals(int(share * rollouts), anchor, pool, old) for share, s in self.steps)

    def search(self, scorer: TextScorer, pool: Pool, seed: int) -> None:
        """See `Optimizer.search`."""
        limit, budget, start, due = scorer.limit, scorer.left, scorer.spent, 0.0
        for index, (share, step) in enumerate(self.steps):
            due += share
            scorer.limit = start + int(round(due, 9) * budget)
            step.search(scorer, pool, derive_seed(seed, "step", index))
        scorer.limit = limit
