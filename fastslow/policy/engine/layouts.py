"""Log-probabilities of completions, exact, in the cheapest of three layouts.

A fast-slow batch repeats its texts and questions in every row. Two texts (A, B) x two questions
(x, y), with completions of two tokens each, make four rows and one trie; the last token of a
completion is predicted and never read:

    A1 A2 x1 | a1 (a2)              A1 - A2 -+- x1 - a1
    A1 A2 y1 | b1 (b2)                       +- y1 - b1
    B1 B2 x1 | c1 (c2)              B1 - B2 -+- x1 - c1
    B1 B2 y1 | d1 (d2)                       +- y1 - d1

*padded* reads the rows as they are: 12 tokens, one pass, for models that cannot share. *packed*
reads each node of the trie once, in one pass over one sequence (`trie.py`), whose attention goes
block by block (`block_attention.py`); with blocks of four nodes:

    sequence   A1 A2 B1 B2 | x1 c1 y1 d1 | x1 a1 y1 b1
    position    0  1  0  1 |  2  3  2  3 |  2  3  2  3
    attends to  itself     | B and itself| A and itself

*tree* reads a text (A1 A2), then its questions as a batch (x1 / y1), then their completions as a
batch (a1 / b1), each level after copies of the cache of the one above (`tree.py`): three passes a
text. All give the same numbers; a cost model picks per batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fastslow.core.types import TokenIds
from fastslow.policy.engine.head import plain_head, score_targets
from fastslow.policy.engine.prefixes import shared_prefixes
from fastslow.policy.engine.shards import is_sharded
from fastslow.policy.engine.sharing import why_not_shared
from fastslow.policy.engine.sizes import sizes_on
from fastslow.policy.engine.states import pack_inputs, packed_states, padded_states
from fastslow.policy.engine.tree import tree_states

Layout: TypeAlias = Literal["padded", "packed", "tree"]

ATTENTION_SLOWDOWN = 2.0
"""Time of an attention score against as many multiplications inside a linear layer. Source: our
estimate, not fitted."""


@dataclass(frozen=True)
class ScoredTokens:
    """What the model says of the completion tokens of some rows, padded with zeros on the right."""

    logprobs: Float[Tensor, "rows tokens"]
    """Natural-log probability of each completion token."""
    entropies: Float[Tensor, "rows tokens"]
    """Entropy of the distribution each was drawn from, in nats; carries no gradient."""


@dataclass(frozen=True)
class Predictions:
    """The model's state at the positions that predict completion tokens."""

    states: Float[Tensor, "nodes width"]
    """Last hidden states, one row per distinct position; logits where there is no `head`."""
    nodes: tuple[tuple[int, ...], ...]
    """For each completion, the row of `states` that predicts each of its tokens."""
    head: torch.nn.Linear | None
    """Turns states into logits."""

    def logits(self, rows: slice | Sequence[int]) -> Float[Tensor, "nodes vocab"]:
        """Logits of some rows of `states`."""
        states = self.states[rows if isinstance(rows, slice) else list(rows)]
        return states if self.head is None else self.head(states)


def score_completions(
    model: Any,
    prompts: Sequence[TokenIds],
    completions: Sequence[TokenIds],
    temperature: float = 1.0,
    layout: Layout | None = None,
) -> ScoredTokens:
    """Log-probabilities of `completions` after `prompts`, none of them empty.

    One row per completion, as wide as the longest; differentiable in the model's parameters. Logits
    are divided by the temperature first. Without a layout the cheapest is taken.
    """
    predictions = predict(model, prompts, completions, layout)
    states, head = predictions.states, predictions.head
    device = states.device

    def flat(rows: Sequence[Sequence[int]]) -> Int[Tensor, " targets"]:
        return torch.tensor([number for row in rows for number in row], device=device)

    # [targets]: all rows' completion tokens in one line, and the row of `states` before each
    nodes, targets = flat(predictions.nodes), flat(completions)
    if head is not None:
        logprobs, entropies = score_targets(states, head, nodes, targets, temperature)
    else:
        log_distributions = torch.log_softmax(states.float() / temperature, dim=-1)
        logprobs = log_distributions[nodes, targets]
        with torch.no_grad():
            entropies = -(log_distributions.exp() * log_distributions).sum(-1)

    # [targets] -> [rows, tokens], filled row by row where a row has tokens
    lengths = torch.tensor([len(completion) for completion in completions], device=device)
    is_token = torch.arange(int(lengths.max()), device=device) < lengths[:, None]
    zeros = torch.zeros(is_token.shape, device=device)
    return ScoredTokens(
        zeros.masked_scatter(is_token, logprobs), zeros.masked_scatter(is_token, entropies[nodes])
    )


def predict(
    model: Any,
    prompts: Sequence[TokenIds],
    completions: Sequence[TokenIds],
    layout: Layout | None = None,
) -> Predictions:
    """States that predict every completion token, in the given layout or the cheapest one."""
    run: Mapping[Layout, Callable[..., tuple[Tensor, list[list[int]]]]] = {
        "padded": padded_states,
        "packed": packed_states,
        "tree": tree_states,
    }
    layout = layout or cheapest(model, prompts, completions)
    head = plain_head(model)
    assert head is not None or layout == "padded", "the shared layouts give hidden states"
    states, nodes = run[layout](model, prompts, completions)
    return Predictions(states, tuple(map(tuple, nodes)), head)


def cheapest(model: Any, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]) -> Layout:
    """The layout with the lowest estimated cost; padded for models that cannot share."""
    if why_not_shared(model) is not None:
        return "padded"
    costs = layout_costs(model, prompts, completions)
    if is_sharded(model):  # the tree's passes share one way back, and layers are fetched for one
        del costs["tree"]
    return min(costs, key=lambda layout: costs[layout])


def layout_costs(
    model: Any, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
) -> dict[Layout, float]:
    """Estimated cost of each layout, in tokens that go through the linear layers.

    One score of attention costs 4 x hidden x layers operations (its share of Q K^T and of the
    product with V), one token 2 x parameters; every pass costs a constant. Forward and backward
    scale alike.
    """
    config = model.config
    parameters: int = sum(p.numel() for p in model.parameters())
    score: float = ATTENTION_SLOWDOWN * 4 * config.hidden_size * config.num_hidden_layers
    tokens_per_score = score / (2 * parameters)
    sizes = sizes_on(model.device)

    def cost(rows: int, width: int, past: int) -> float:
        """One pass over [rows, width] tokens, each attending to `past` and its own row."""
        scores = rows * width * (past + width)
        return rows * width + tokens_per_score * scores + sizes.pass_tokens

    # padded: every row as wide as the longest prompt and the longest completion together
    width = max(map(len, prompts)) + max(map(len, completions))
    padded = cost(len(prompts), width, 0)

    # packed: each distinct token once, and the scores that the blocks compute, masked ones included
    trie = pack_inputs(prompts, completions, sizes.block_tokens)
    scores = sum(block.mask.numel() for block in trie.blocks)
    packed = len(trie.tokens) + tokens_per_score * scores + sizes.pass_tokens

    # tree: for each text three passes, each level padded to its widest row and after what is cached
    tree = 0.0
    for group in shared_prefixes(prompts):
        rows = {(prompts[i], completions[i]) for i in group.members}
        questions = {prompt for prompt, _ in rows}
        text = len(group.trunk)
        question = max(map(len, questions)) - text
        completion = max(len(completion) for _, completion in rows) - 1
        tree += cost(1, text, 0)
        tree += cost(len(questions), question, text)
        tree += cost(len(rows), completion, text + question)
    return {"padded": padded, "packed": packed, "tree": tree}
