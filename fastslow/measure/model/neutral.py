"""Plain prose that belongs to no task, and how well the policy predicts it.

A loss on it comes from training on something else. The passages were written for this
project and are free under its licence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastslow.core.types import TokenIds
from fastslow.measure.model.drift import Drift, DriftInputs, token_mean
from fastslow.policy.activations import Activations
from fastslow.policy.policy import Policy

NEUTRAL_TOKENS = 8
"""Limit of a continuation of neutral prose. Source: ours, that of word-level tasks: inputs with the
same limit are drawn together."""

NEUTRAL_PASSAGES = tuple(
    Path(__file__).with_name("neutral_passages.txt").read_text(encoding="utf-8").splitlines()
)
"""One a line."""


@dataclass(frozen=True)
class NeutralPass:
    """One pass over the passages: how well they are predicted, and what the units did in it."""

    logprobs: list[tuple[float, ...]]
    """Log-probability of each token of each passage but the first, in nats."""
    activations: Activations
    """Of all positions; the proxies of plasticity are measured on them too."""


@dataclass(frozen=True)
class NeutralText:
    """How well the policy predicts text that belongs to no task."""

    tuned: Drift
    """Cross-entropy, adapter on."""
    base: Drift
    """Adapter off."""
    delta: Drift
    """`neutral_ce_delta`, tuned - base: positive = general language got worse."""


def read_neutral(
    policy: Policy, passages: Sequence[str] = NEUTRAL_PASSAGES, *, adapter: bool = True
) -> NeutralPass:
    """Take passages of two tokens at least through the model, no prompt around them."""
    rows = neutral_ids(policy, passages)
    activations = policy.activations(rows, adapter=adapter)
    logprobs = policy.next_token_logprobs(rows, activations, adapter=adapter)
    return NeutralPass(logprobs, activations)


def neutral_cross_entropy(
    tuned: Sequence[Sequence[float]], base: Sequence[Sequence[float]]
) -> NeutralText:
    """Cross-entropy of the passages with the adapter on and off.

    The first token of a passage is given; all others are predicted. Takes `NeutralPass.logprobs`.

    Source: TRACE (arXiv 2310.06762) for the deltas of general ability; the passages are ours.
    """
    pairs = list(zip(tuned, base, strict=True))
    return NeutralText(
        tuned=token_mean([tuple(-x for x in row) for row in tuned]),
        base=token_mean([tuple(-x for x in row) for row in base]),
        delta=token_mean([tuple(b - a for a, b in zip(x, y, strict=True)) for x, y in pairs]),
    )


def neutral_ids(policy: Policy, passages: Sequence[str] = NEUTRAL_PASSAGES) -> list[TokenIds]:
    """Token ids of the passages, without a chat template."""
    return [policy.renderer.text_ids(passage) for passage in passages]


def neutral_inputs(policy: Policy, count: int) -> DriftInputs:
    """The first halves of `count` passages: inputs of no task for `drift_on`."""
    rows = neutral_ids(policy, NEUTRAL_PASSAGES[:count])
    return DriftInputs(tuple(row[: max(1, len(row) // 2)] for row in rows), NEUTRAL_TOKENS)
