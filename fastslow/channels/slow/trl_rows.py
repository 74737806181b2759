"""TRL's rows, figures and arguments as ours: padding undone, log-probs in passes, our names."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from trl import GRPOConfig

from fastslow.channels.slow.settings import GrpoConfig
from fastslow.channels.slow.trainer import silent_arguments
from fastslow.core.types import TokenIds
from fastslow.policy.engine.head import evaluating
from fastslow.policy.engine.layouts import score_completions

NO_LOSS_TOKENS = (
    "slow: the loss mask covers 0 tokens of the completions that rewards could be learned from. "
    "Every token is taken for padding or for cut off: check model.name, and the eos_token and "
    "pad_token of its tokenizer_config.json."
)


def score_rows(
    model: Any,
    prompts: Sequence[TokenIds],
    completions: Sequence[TokenIds],
    width: int,
    temperature: float,
    size: int,
) -> tuple[Float[Tensor, "rows width"], Float[Tensor, "rows width"]]:
    """Log-probability and entropy of every token of the completions, in nats; 0 on padding.

    The result has `width` columns; `size` rows at most go through the model together. See
    `score_completions`.
    """
    logprobs, entropies = [], []
    for start in range(0, len(prompts), size):
        rows = slice(start, start + size)
        with evaluating(model):
            scored = score_completions(model, prompts[rows], completions[rows], temperature)
        missing = (0, width - scored.logprobs.shape[1])
        logprobs.append(torch.nn.functional.pad(scored.logprobs, missing))
        entropies.append(torch.nn.functional.pad(scored.entropies, missing))
    return torch.cat(logprobs), torch.cat(entropies)


def unpad(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, completion_width: int
) -> tuple[list[TokenIds], list[TokenIds]]:
    """Undo TRL's padding: prompts padded on the left, completions on the right.

    Ids and mask are [rows, prompt width + completion width].
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


def trl_arguments(
    settings: GrpoConfig, num_rows: int, num_passes: int, max_tokens: int, **others: Any
) -> GRPOConfig:
    """TRL's arguments for updates of so many rollouts of this process, in so many passes."""
    return silent_arguments(
        GRPOConfig,
        loss_type=settings.loss,
        epsilon_high=settings.ratio_cap if settings.loss == "cispo" else None,
        beta=0.0,
        # Dr. GRPO (arXiv 2503.20783) takes the mean off and does not divide by the deviation
        scale_rewards="none" if settings.loss == "dr_grpo" else "group",
        num_generations=settings.group,
        max_completion_length=max_tokens,
        temperature=settings.temperature,
        per_device_train_batch_size=num_rows // num_passes,
        gradient_accumulation_steps=num_passes,
        steps_per_generation=num_passes,
        **others,
    )
