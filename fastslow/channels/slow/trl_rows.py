"""TRL's rows and figures as ours: padding undone, log-probabilities in passes, our names."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fastslow.core.types import TokenIds
from fastslow.policy.engine.layouts import score_completions


class RowScores:
    """Log-probabilities and entropies of rows, each padded to one width, all or some at a time.

    Args:
        model: A transformers causal language model, with or without an adapter.
        prompts: Token ids before each completion; none empty.
        completions: Token ids to score.
        width: Columns of the result; the longest completion's at least.
        temperature: Logits are divided by it first; > 0.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[TokenIds],
        completions: Sequence[TokenIds],
        width: int,
        temperature: float,
    ) -> None:
        self.model = model
        self.prompts = prompts
        self.completions = completions
        self.width = width
        self.temperature = temperature

    def score(self, rows: slice) -> tuple[Float[Tensor, "rows width"], Float[Tensor, "rows width"]]:
        """Log-probability and entropy of every token of these rows, in nats; 0 on padding."""
        prompts, completions = self.prompts[rows], self.completions[rows]
        scored = score_completions(self.model, prompts, completions, self.temperature)
        missing = (0, self.width - scored.logprobs.shape[1])
        pad = torch.nn.functional.pad
        return pad(scored.logprobs, missing), pad(scored.entropies, missing)

    def in_passes(
        self, size: int
    ) -> tuple[Float[Tensor, "rows width"], Float[Tensor, "rows width"]]:
        """As `score` on all rows, with `size` of them at most going through the model together."""
        starts = range(0, len(self.prompts), size)
        logprobs, entropies = zip(
            *(self.score(slice(start, start + size)) for start in starts), strict=True
        )
        return torch.cat(logprobs), torch.cat(entropies)


def unpad(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, completion_width: int
) -> tuple[list[TokenIds], list[TokenIds]]:
    """Undo TRL's padding: prompts padded on the left, completions on the right.

    Args:
        input_ids: [rows, prompt width + completion width].
        attention_mask: 1 on real tokens.
        completion_width: Columns that belong to completions.
    """
    cut = input_ids.shape[1] - completion_width
    prompts, completions = [], []
    for ids, mask in zip(input_ids.tolist(), attention_mask.tolist(), strict=True):
        prompts.append(tuple(t for t, real in zip(ids[:cut], mask[:cut], strict=True) if real))
        completions.append(tuple(t for t, real in zip(ids[cut:], mask[cut:], strict=True) if real))
    return prompts, completions


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`; both >= 1."""
    return next(n for n in range(min(number, limit), 0, -1) if number % n == 0)


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """Weighted mean; weights of which at least one is above 0."""
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)


def our_figures(figures: dict[str, float]) -> dict[str, float]:
    """TRL's figures under our names; the others stay out of the record."""
    names = {
        "reward": "reward",
        "reward_std": "reward_std",
        "kl": "kl_k3_tuned_base",
        "entropy": "entropy",
        "completions/mean_length": "completion_tokens",
    }
    return {ours: float(figures[theirs]) for theirs, ours in names.items() if theirs in figures}
