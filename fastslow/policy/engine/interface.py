"""Sampling and scoring as two interfaces: token ids in, plain numbers out.

Completions may be drawn elsewhere (a `Sampler` over a server); log-probabilities and divergences
need the weights that are trained, so a `Scorer` stays where the trainer is. Nothing above this
layer may assume that the sampler's model lives in this process.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

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


class Sampler(Protocol):
    """Draws completions under the present weights."""

    num_rollouts: int
    """Completions drawn from the tuned policy since the sampler was made: the unit every budget is
    counted in. Draws from the base are not rollouts of a task, and are not in it."""
    num_tokens: int
    """Tokens of those completions."""

    def sample(
        self,
        prompts: Sequence[TokenIds],
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        adapter: bool = True,
    ) -> list[Completion]:
        """Draw one completion per prompt, in order; without `adapter` from the base weights.

        No prompt is empty; repeat one for several completions of it. A row's draws depend on its
        seed alone, not on its batch.
        """
        ...


@runtime_checkable
class RemoteSampler(Sampler, Protocol):
    """A sampler that computes apart from the weights that are trained, and so a little otherwise.

    Whoever learns from its draws corrects for that.
    """

    swap_s: float
    """Wall time for bringing the weights there and proving it, since the sampler was made."""


class Scorer(Protocol):
    """Scores completions under the present weights, next to the base."""

    def logprobs(
        self, prompts: Sequence[TokenIds], completions: Sequence[TokenIds], *, adapter: bool = True
    ) -> list[tuple[float, ...]]:
        """Natural-log probability of each completion token at temperature 1; see `Sampler`."""
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

    def base_weights(self) -> AbstractContextManager[None]:
        """Within it the policy computes as the untouched base."""
        ...
