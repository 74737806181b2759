"""Which rollouts an update learns from, and how much each of their tokens counts.

Pure functions on tensors, next to TRL's own group advantage.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fastslow.channels.slow.settings import Averaging

Rows: TypeAlias = dict[str, Any]
"""Rollouts as TRL keeps them: tensors with one row per rollout, and figures of the whole batch."""

WEIGHT = "tool_mask"
"""TRL multiplies its loss mask by the field of this name, made for tokens that a tool wrote. A
float in it weights the policy term, the KL term and the logged means alike."""


def loss_weights(
    tokens: Float[Tensor, "prompts group"], trained: Bool[Tensor, " prompts"], averaging: Averaging
) -> Float[Tensor, "prompts group"]:
    """Weight of each rollout's tokens under a loss that is divided by all tokens of the batch.

    Groups that are not kept weigh 0 and leave the denominator, as if they had not been drawn.

    By `problem` every kept problem weighs the same, N / (P * N_g) with N tokens in the batch, P
    kept problems, N_g tokens in the group; by `token` every kept token does. The product of weights
    and tokens sums to N if a group is kept; all weights are 0 if none is.

    Source: Fast-Slow Training (arXiv 2605.12484), Eq. 4: token losses averaged per problem, then
        over problems; groups without variance dropped, not resampled (ScaleRL, section 3.2).
    """
    per_problem = tokens.sum(dim=1) * trained
    counted = trained.sum() * per_problem if averaging == "problem" else per_problem.sum()
    share = tokens.sum() / counted.clamp(min=1.0)
    return (share * trained)[:, None].expand_as(tokens)


def gated_advantages(
    advantages: Float[Tensor, "prompts group"],
    trained: Bool[Tensor, " prompts"],
    lucky: Bool[Tensor, " prompts"],
    cap: float | None,
) -> Float[Tensor, "prompts group"]:
    """Advantages with exact zeros for groups that are not kept, and capped in lucky groups.

    TRL leaves up to 1e-3 where rewards are equal, by rounding. A lucky group is scaled as a whole,
    so that its advantages still sum to 0 and only its step gets shorter. A group is lucky with
    exactly one success; others that are `trained` keep their advantages. Without a cap all do.
    """
    largest = advantages.abs().amax(dim=1)
    limit = float("inf") if cap is None else cap
    scale = torch.where(lucky & (largest > limit), limit / largest, torch.ones_like(largest))
    return torch.where(trained, scale, torch.zeros_like(scale))[:, None] * advantages


def cut_passes(rows: Mapping[str, Any], rows_per_pass: int) -> list[Rows]:
    """Cut rollouts into passes, in order, leaving out rows whose weight is 0.

    Every pass keeps at least one row, so that their number does not depend on the rewards. What
    does not have one row per rollout goes into every pass.
    """
    passes = []
    for start in range(0, len(rows["advantages"]), rows_per_pass):
        cut = slice(start, start + rows_per_pass)
        part = taken(rows, cut)
        if WEIGHT in part:
            counts = part[WEIGHT][:, 0] > 0
            counts[0] |= ~counts.any()
            part = taken(part, counts)
        passes.append(part)
    return passes


def loss_tokens(rows: Mapping[str, Any]) -> float:
    """Completion tokens the loss covers, each with its weight."""
    mask = rows["completion_mask"]
    return float((mask * rows[WEIGHT]).sum() if WEIGHT in rows else mask.sum())


def taken(rows: Mapping[str, Any], chosen: slice | Sequence[int] | Tensor) -> Rows:
    """Some of the rows, in that order; what is not by row stays as it is."""
    return {
        name: value[chosen] if isinstance(value, Tensor) and value.dim() > 0 else value
        for name, value in rows.items()
    }
