"""One interface for sampling and log-probabilities.

Nothing above this layer may assume that the model lives in this process: channels and measures
hand over token ids and get plain numbers back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fastslow.core.types import Completion, Sampling, TokenIds


@dataclass(frozen=True, slots=True)
class TokenComparison:
    """Tuned and base at each position of one completion, in nats; same context for both.

    Exact over the whole vocabulary at temperature 1.
    """

    kl_tuned_base: tuple[float, ...]
    """KL(tuned || base), >= 0 up to rounding."""
    kl_base_tuned: tuple[float, ...]
    """KL(base || tuned), >= 0 up to rounding."""
    entropy_tuned: tuple[float, ...]
    """In [0, ln of the vocabulary's size]."""
    entropy_base: tuple[float, ...]
    """As `entropy_tuned`, adapter off."""


class Engine(Protocol):
    """Draws completions and scores them under the present weights."""

    num_rollouts: int
    """Completions drawn from the tuned policy since the engine was made: the unit every budget is
    counted in. What is drawn from the base is no rollout of a task, and is not in it."""

    def sample(
        self,
        prompts: Sequence[TokenIds],
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        adapter: bool = True,
    ) -> list[Completion]:
        """Draw one completion per prompt.

        Args:
            prompts: Token ids, none empty; repeat a prompt for several completions of it.
            sampling: Limit and temperature.
            seeds: One per prompt. A row's draws depend on its seed alone, not on its batch.
            adapter: False draws from the base weights.

        Returns:
            Completions in the order of `prompts`.
        """
        ...

    def logprobs(
        self, prompts: Sequence[TokenIds], completions: Sequence[TokenIds], *, adapter: bool = True
    ) -> list[tuple[float, ...]]:
        """Natural-log probability of each completion token at temperature 1.

        Args:
            prompts: Token ids before each completion.
            completions: Token ids to score.
            adapter: False scores under the base weights.
        """
        ...

    def kl_to_base(
        self, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
    ) -> list[tuple[float, ...]]:
        """Exact KL(tuned || base) in nats at each completion position, same context for both.

        Over the whole vocabulary; >= 0 up to rounding, all zeros without an adapter.
        """
        ...

    def compare_to_base(
        self, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
    ) -> list[TokenComparison]:
        """Both directions of the divergence and both entropies at each completion position.

        Two forward passes, as `kl_to_base`; one comparison per completion.
        """
        ...
