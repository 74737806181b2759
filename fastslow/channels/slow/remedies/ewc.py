"""Elastic weight consolidation, online: weights that mattered to earlier tasks are held in place.

arXiv 1612.00796, in the online form of arXiv 1805.06370: one running Fisher diagonal, one anchor.
The true Fisher: squared gradients of the log-probability of the policy's own completions, not of
gold answers. The weights are A and B: turning the ranks changes the Fisher and not the model, so it
holds under `adapter_policy: continue` only. The Fisher of A is 0 as long as B is 0.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt

from fastslow.channels.slow.remedies.base import (
    AdapterPolicy,
    Ended,
    Memory,
    Remedy,
    RemedyConfig,
    RemedyPrice,
    StageSize,
    Weights,
    remedy,
)
from fastslow.channels.slow.remedies.own_completions import own_completions
from fastslow.core.keys import OURS, Rate, key

if TYPE_CHECKING:
    from torch import Tensor

FISHER, ANCHOR = "fisher/", "anchor/"
"""Prefixes of the memory's tensors, before the weights' names."""


class EwcConfig(RemedyConfig):
    """Elastic weight consolidation: a quadratic penalty on weights that mattered before."""

    adapter_policies: ClassVar[tuple[AdapterPolicy, ...]] = ("continue",)
    why_not: ClassVar[str] = "holds the same weights from stage to stage"

    kind: Literal["ewc"] = key("ewc", "name", "arXiv 1612.00796")
    """Which remedy."""
    strength: PositiveFloat = key(100.0, "weight", "ours: choose a gradient share of about 1")
    """Weight of the penalty, half the Fisher-weighted squared distance from the anchor."""
    examples: PositiveInt = key(32, "training examples", OURS)
    """Examples on which the Fisher is estimated when a stage ends; a backward pass each."""
    decay: Rate = key(1.0, "factor", "online form, arXiv 1805.06370")
    """The Fisher of earlier stages is multiplied by it when a new one is added."""

    def price(self, stage: StageSize) -> RemedyPrice:
        """A rollout and a backward pass for each example."""
        return RemedyPrice(rollouts=self.examples, trained=self.examples)


@remedy(name="ewc", source="EWC, arXiv 1612.00796; online form, arXiv 1805.06370")
def ewc(config: EwcConfig) -> Remedy:
    """Holds weights where they were, each by how much earlier tasks depended on it."""

    def penalty(weights: Weights, memory: Memory) -> "Tensor | None":
        terms = [
            (memory.tensors[FISHER + name] * (weight - memory.tensors[ANCHOR + name]) ** 2).sum()
            for name, weight in weights.items()
            if FISHER + name in memory.tensors
        ]
        return sum(terms[1:], terms[0]) / 2 if terms else None

    def end(ended: Ended, memory: Memory) -> dict[str, float | None]:
        fisher = fisher_diagonal(ended, config.examples)
        for name, weight in ended.stage.policy.adapters.trainable().items():
            before = memory.tensors.get(FISHER + name)
            values = fisher[name] if before is None else config.decay * before + fisher[name]
            memory.tensors[FISHER + name] = values
            memory.tensors[ANCHOR + name] = weight.detach().clone()
        total = sum(float(values.sum()) for values in fisher.values())
        count = sum(values.numel() for values in fisher.values())
        examples = min(config.examples, len(ended.stage.task.train))
        return {"fisher_mean": total / count, "examples": float(examples)}

    return Remedy(penalty=penalty, end=end, strength=config.strength)


def fisher_diagonal(ended: Ended, num_examples: int) -> "dict[str, Tensor]":
    """Mean over examples of (d ln p(y) / d theta)^2, y one own completion at temperature 1.

    One backward pass per example: the squares of a mean are not the mean of squares.
    """
    import torch

    policy = ended.stage.policy
    program = policy.live_program(ended.stage.task)
    draws = own_completions(ended.stage, num_examples)
    weights = policy.adapters.trainable()
    fisher = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for example, completion in draws:
        prompt = policy.renderer.prompt_ids(program, example.question)
        logprob = policy.completion_logprobs([prompt], [completion.token_ids]).sum()
        gradients = torch.autograd.grad(logprob, list(weights.values()))
        for values, gradient in zip(fisher.values(), gradients, strict=True):
            values += gradient**2 / len(draws)
    return fisher
