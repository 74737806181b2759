"""Log-probabilities of completions, exact, in the cheapest of three layouts.

A fast-slow batch repeats its texts and questions in every row. *padded* is the plain batch;
*packed* puts the unique tokens into one sequence (`trie.py`); *tree* computes the keys and values
of each text once, of each question once, and branches (`tree.py`). All give the same numbers; a
cost model picks per batch.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fastslow.policy.prefixes import shared_prefixes
from fastslow.policy.tree import tree_logits
from fastslow.policy.trie import pack
from fastslow.types import TokenIds

Layout: TypeAlias = Literal["padded", "packed", "tree"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)

PASS_TOKENS = 12.0
"""What starting one more forward and backward pass costs, in tokens. Source: a first guess, too low
by what docs/log.md found."""
ATTENTION_SLOWDOWN = 3.0
"""Time of a masked attention score against a multiplication inside a linear layer. Source: a first
guess."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompletionLogits:
    """The model's output at the positions that predict completion tokens."""

    logits: Float[Tensor, "nodes vocab"]
    """One row per distinct position that precedes a completion token; differentiable."""
    nodes: tuple[tuple[int, ...], ...]
    """For each completion, the row of `logits` that predicts each of its tokens."""


@dataclass(frozen=True)
class ScoredTokens:
    """What the model says of the completion tokens of some rows, padded with zeros on the right."""

    logprobs: Float[Tensor, "rows tokens"]
    """Natural-log probability of each completion token."""
    entropies: Float[Tensor, "rows tokens"]
    """Entropy of the distribution each was drawn from, in nats; carries no gradient."""


def score_completions(
    model: Any,
    prompts: Sequence[TokenIds],
    completions: Sequence[TokenIds],
    temperature: float = 1.0,
    layout: Layout | None = None,
) -> ScoredTokens:
    """Log-probabilities of `completions` after `prompts`.

    Args:
        model: A transformers causal language model, with or without an adapter.
        prompts: Token ids before each completion; none empty.
        completions: Token ids to score; none empty.
        temperature: Logits are divided by it first; > 0.
        layout: How the rows go through the model; None takes the cheapest.

    Returns:
        One row per completion, as wide as the longest. Differentiable in the model's parameters.
    """
    output = completion_logits(model, prompts, completions, layout)
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


def completion_logits(
    model: Any,
    prompts: Sequence[TokenIds],
    completions: Sequence[TokenIds],
    layout: Layout | None = None,
) -> CompletionLogits:
    """Logits of every completion token, in the given layout or the cheapest one."""
    run: Mapping[Layout, Callable[..., tuple[Tensor, list[list[int]]]]] = {
        "padded": padded_logits,
        "packed": packed_logits,
        "tree": tree_logits,
    }
    logits, nodes = run[layout or cheapest(model, prompts, completions)](
        model, prompts, completions
    )
    return CompletionLogits(logits, tuple(map(tuple, nodes)))


def padded_logits(
    model: Any, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
) -> tuple[Tensor, list[list[int]]]:
    """The plain batch: prompts padded on the left, completions on the right."""
    before, after = max(map(len, prompts)), max(map(len, completions))
    ids = torch.zeros(len(prompts), before + after, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (prompt, done) in enumerate(zip(prompts, completions, strict=True)):
        start, end = before - len(prompt), before + len(done)
        ids[row, start:end] = torch.tensor(prompt + done)
        mask[row, start:end] = 1
    device = model.device
    logits = model(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0).to(device),
        logits_to_keep=after + 1,
        use_cache=False,
    ).logits
    nodes = [
        list(range(row * (after + 1), row * (after + 1) + len(done)))
        for row, done in enumerate(completions)
    ]
    return logits.flatten(0, 1), nodes


def packed_logits(
    model: Any, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
) -> tuple[Tensor, list[list[int]]]:
    """The unique tokens as one sequence with an ancestor mask; see `trie.py`."""
    packed = pack([prompt + done for prompt, done in zip(prompts, completions, strict=True)])
    # The distribution of a completion token comes from the node before it.
    before = [
        path[len(prompt) - 1 : -1] for prompt, path in zip(prompts, packed.paths, strict=True)
    ]
    kept = sorted({node for path in before for node in path})
    index = {node: row for row, node in enumerate(kept)}
    device = model.device
    logits = model(
        input_ids=packed.tokens[None].to(device),
        attention_mask=packed.mask[None, None].to(device),
        position_ids=packed.depth[None].to(device),
        logits_to_keep=torch.tensor(kept, device=device),
        use_cache=False,
    ).logits[0]
    return logits, [[index[node] for node in path] for path in before]


def cheapest(model: Any, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]) -> Layout:
    """The layout with the lowest estimated cost; padded for models that cannot share."""
    reason = why_not_shared(model)
    if reason is not None:
        if not getattr(model, "_fastslow_told", False):
            logger.warning("Prompts are not shared in log-probabilities: %s.", reason)
            model._fastslow_told = True
        return "padded"
    costs = layout_costs(model, prompts, completions)
    if model.training and getattr(model, "is_activation_checkpointing", False):
        del costs["tree"]  # checkpointing switches caches off
    return min(costs, key=lambda layout: costs[layout])


def why_not_shared(model: Any) -> str | None:
    """Why rows of this model cannot share tokens; None if they can.

    Sharing needs attention whose mask is ours to give: full attention in every layer, no state
    carried from token to token, no image or audio parts.
    """
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        return f"the layers of {config.model_type} are of kinds {', '.join(sorted(kinds))}"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return f"{config.model_type} attends within a sliding window"
    if getattr(config, "is_encoder_decoder", False) or hasattr(config, "vision_config"):
        return f"{config.model_type} is no plain decoder"
    if not hasattr(config, "num_attention_heads"):
        return f"{config.model_type} has no attention to share"
    return None


def layout_costs(
    model: Any, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
) -> dict[Layout, float]:
    """Estimated cost of each layout, in tokens that go through the linear layers.

    An attention score costs 4 x hidden x layers operations, a token 2 x parameters; passes cost a
    constant each. Forward and backward scale alike.
    """
    config = model.config
    parameters: int = sum(p.numel() for p in model.parameters())
    score: float = ATTENTION_SLOWDOWN * 4 * config.hidden_size * config.num_hidden_layers
    pair = score / (2 * parameters)

    def cost(tokens: int, pairs: float, passes: int) -> float:
        return tokens + pair * pairs + PASS_TOKENS * passes

    width = max(map(len, prompts)) + max(map(len, completions))
    padded = cost(len(prompts) * width, len(prompts) * width * width, 1)
    unique = _unique_tokens([p + c for p, c in zip(prompts, completions, strict=True)])
    packed = cost(unique, unique * unique, 1)
    tree = 0.0
    for group in shared_prefixes(prompts):
        rows = {(prompts[i], completions[i]) for i in group.members}
        trunk = len(group.trunk)
        suffixes = {prompt for prompt, _ in rows}
        suffix = max(map(len, suffixes)) - trunk
        done = max(len(completion) for _, completion in rows) - 1
        tree += cost(trunk, trunk * trunk, 1)
        tree += cost(len(suffixes) * suffix, len(suffixes) * suffix * (trunk + suffix), 1)
        tree += cost(len(rows) * done, len(rows) * done * (trunk + suffix + done), 1)
    return {"padded": padded, "packed": packed, "tree": tree}


def _unique_tokens(rows: Sequence[TokenIds]) -> int:
    """Nodes of the rows' trie, counted on the sorted rows."""
    total = 0
    previous: TokenIds = ()
    for row in sorted(rows):
        limit = min(len(row), len(previous))
        total += len(row) - next((i for i in range(limit) if row[i] != previous[i]), limit)
        previous = row
    return total
