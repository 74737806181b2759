"""Corrects an update for rollouts that were drawn elsewhere than where the weights are trained.

Another program rounds otherwise, so what it draws from is a little another policy. Truncated
importance sampling as TRL does it (`vllm_importance_sampling_mode: sequence_mask`): a completion
counts by the ratio of its probabilities, one whose ratio is above a cap not at all. TRL's own code
takes the trainer's probabilities from the loss, whose prompt may be another than the one of the
draw (`slow.gradient_context: bare`); losses are linear in the advantage, so that takes the ratio.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from fastslow.channels.slow.passes import PassSize
from fastslow.channels.slow.rollouts import Rollout
from fastslow.core.distributed import from_all
from fastslow.policy.engine.interface import RemoteSampler
from fastslow.policy.policy import Policy

RATIO_CAP = 3.0
"""TRL's `vllm_importance_sampling_clip_max`."""


@dataclass(frozen=True)
class Mismatch:
    """A trainer next to the sampler of its rollouts; nothing where they are one."""

    ratios: Float[Tensor, " rows"] | None
    """Probability of each completion to the trainer over that to the sampler; 0 above the cap."""
    figures: dict[str, float]
    """Of all processes: `mismatch_kl`, KL(sampler || trainer) in nats per token, estimated by
    e^d - 1 - d of the difference d of log-probabilities, >= 0 (Schulman's k3); `masked_share` of
    rollouts above the cap, in [0, 1]."""

    @classmethod
    def none(cls) -> "Mismatch":
        """Of rollouts drawn with the very weights that are trained: every ratio is 1."""
        return cls(None, {})

    def weigh(self, advantages: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """Advantages times the ratios."""
        return advantages if self.ratios is None else advantages * self.ratios.to(advantages)


def compare(policy: Policy, rollouts: Sequence[Rollout], pass_size: PassSize) -> Mismatch:
    """How this process's rollouts look to the trainer, under the prompts they were drawn with."""
    if not isinstance(policy.sampler, RemoteSampler):
        return Mismatch.none()
    prompt_ids = policy.renderer.prompt_ids
    prompts = [prompt_ids(r.program, r.example.question, r.hint) for r in rollouts]
    completions = [r.completion.token_ids for r in rollouts]

    def score(size: int) -> list[tuple[float, ...]]:
        cuts = [slice(start, start + size) for start in range(0, len(rollouts), size)]
        passes = [policy.scorer.logprobs(prompts[rows], completions[rows]) for rows in cuts]
        return [row for scored in passes for row in scored]

    differences = [
        torch.tensor(trained).double() - torch.tensor(rollout.completion.logprobs).double()
        for trained, rollout in zip(pass_size.fit(score, undo=lambda: None), rollouts, strict=True)
    ]
    ratios = torch.stack([difference.sum() for difference in differences]).exp()
    masked = ratios > RATIO_CAP
    tokens = torch.cat(differences)
    sums = (float((tokens.expm1() - tokens).sum()), len(tokens), int(masked.sum()), len(ratios))
    kl, num_tokens, num_masked, num_rows = map(sum, zip(*from_all(sums), strict=True))
    figures = {"mismatch_kl": kl / num_tokens, "masked_share": num_masked / num_rows}
    return Mismatch(ratios.masked_fill(masked, 0.0), figures)
