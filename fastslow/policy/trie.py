"""Exact log-probabilities over the unique tokens of a batch.

Rows of a fast-slow batch repeat a few long texts and questions. Here the rows become a trie whose
nodes are packed into one sequence: each node attends to its ancestors only and sits at its depth,
so every shared token goes through the model once, forward and backward, and the result equals
that of the padded batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fastslow.types import TokenIds


@dataclass(frozen=True)
class PackedTrie:
    """The unique tokens of some rows, as one sequence."""

    tokens: Int[Tensor, " tokens"]
    """Token id of each node; a parent comes before its children."""
    depth: Int[Tensor, " tokens"]
    """Position of each node in its row, from 0."""
    mask: Bool[Tensor, "tokens tokens"]
    """True where the row's node may attend to the column's: itself and its ancestors."""
    paths: tuple[tuple[int, ...], ...]
    """For each row, the node of each of its tokens."""


def pack(rows: Sequence[TokenIds]) -> PackedTrie:
    """Merge equal prefixes of `rows` into a trie and lay its nodes out in one sequence.

    Args:
        rows: Token ids, any lengths >= 1; equal rows share all their nodes.
    """
    tokens: list[int] = []
    depth: list[int] = []
    parents: list[int] = []
    children: dict[tuple[int, int], int] = {}
    paths = []
    for row in rows:
        node, path = -1, []
        for position, token in enumerate(row):
            child = children.get((node, token))
            if child is None:
                child = children[node, token] = len(tokens)
                tokens.append(token)
                depth.append(position)
                parents.append(node)
            node = child
            path.append(node)
        paths.append(tuple(path))
    mask = torch.eye(len(tokens), dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            mask[node, : parent + 1] |= mask[parent, : parent + 1]
    return PackedTrie(torch.tensor(tokens), torch.tensor(depth), mask, tuple(paths))


@dataclass(frozen=True)
class CompletionLogits:
    """The model's output at the positions that predict completion tokens."""

    logits: Float[Tensor, "nodes vocab"]
    """One row per trie node that precedes a completion token; differentiable."""
    nodes: tuple[tuple[int, ...], ...]
    """For each completion, the row of `logits` that predicts each of its tokens."""


def completion_logits(
    forward: Callable[..., Any], prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
) -> CompletionLogits:
    """Run the model once over the trie of `prompts` and `completions`.

    Args:
        forward: A causal language model (a distributed wrapper included), called once with
            `input_ids`, a 4-D boolean `attention_mask`, `position_ids` and `logits_to_keep`.
        prompts: Token ids before each completion; none empty.
        completions: Token ids to be predicted; none empty.
    """
    packed = pack([prompt + done for prompt, done in zip(prompts, completions, strict=True)])
    # The distribution of a completion token comes from the node before it.
    before = [
        path[len(prompt) - 1 : -1] for prompt, path in zip(prompts, packed.paths, strict=True)
    ]
    kept = sorted({node for path in before for node in path})
    index = {node: row for row, node in enumerate(kept)}
    device = next(forward.parameters()).device  # type: ignore[attr-defined]  # any nn.Module
    logits = forward(
        input_ids=packed.tokens[None].to(device),
        attention_mask=packed.mask[None, None].to(device),
        position_ids=packed.depth[None].to(device),
        logits_to_keep=torch.tensor(kept, device=device),
        use_cache=False,
    ).logits[0]
    return CompletionLogits(logits, tuple(tuple(index[node] for node in path) for path in before))


@dataclass(frozen=True)
class ScoredTokens:
    """What the model says of the completion tokens of some rows, padded with zeros on the right."""

    logprobs: Float[Tensor, "rows tokens"]
    """Natural-log probability of each completion token."""
    entropies: Float[Tensor, "rows tokens"]
    """Entropy of the distribution each was drawn from, in nats; carries no gradient."""


def score_completions(
    forward: Callable[..., Any],
    prompts: Sequence[TokenIds],
    completions: Sequence[TokenIds],
    temperature: float = 1.0,
) -> ScoredTokens:
    """Log-probabilities of `completions` after `prompts`, computed on their trie.

    Args:
        forward: See `completion_logits`.
        prompts: Token ids before each completion; none empty.
        completions: Token ids to score; none empty.
        temperature: Logits are divided by it first; > 0.

    Returns:
        One row per completion, as wide as the longest. Differentiable in the model's parameters.
    """
    output = completion_logits(forward, prompts, completions)
    log_distributions = torch.log_softmax(output.logits.float() / temperature, dim=-1)
    width = max(map(len, completions))

    def padded(rows: Sequence[Sequence[int]]) -> Int[Tensor, "rows tokens"]:
        filled = [[*row, *[0] * (width - len(row))] for row in rows]
        return torch.tensor(filled, device=log_distributions.device)

    nodes, targets = padded(output.nodes), padded(completions)
    real = padded([[1] * len(done) for done in completions])
    with torch.no_grad():
        entropy = -(log_distributions.exp() * log_distributions).sum(-1)
    return ScoredTokens(log_distributions[nodes, targets] * real, entropy[nodes] * real)
