"""The tree layout: keys and values of each text once, of each question once, then branches.

Three levels, trunk - question - completion, each one forward pass over what is new at that level;
the cache of a level is copied to its branches inside the graph, so gradients of all branches add
up in the tokens they share.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastslow.core.types import TokenIds
from fastslow.policy.engine.head import hidden_states
from fastslow.policy.engine.prefixes import PrefixGroup, shared_prefixes


def tree_states(
    model: Any, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
) -> tuple[Tensor, list[list[int]]]:
    """States that predict every completion token, level by level.

    Args:
        model: A transformers causal language model that takes a cache and has a plain head.
        prompts: Token ids before each completion; none empty.
        completions: Token ids to be predicted; none empty.

    Returns:
        Hidden states [nodes, hidden], and for each completion the rows that predict its tokens.
    """
    parts: list[Tensor] = []
    nodes: list[list[int]] = [[] for _ in prompts]
    offset = 0
    for group in shared_prefixes(prompts):
        states, found = _group_states(model, group, prompts, completions)
        for index, rows in zip(group.members, found, strict=True):
            nodes[index] = [offset + row for row in rows]
        parts.append(states)
        offset += len(states)
    return torch.cat(parts), nodes


def _group_states(
    model: Any, group: PrefixGroup, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
) -> tuple[Tensor, list[list[int]]]:
    """One text with its questions and completions."""
    from transformers import DynamicCache

    trunk = group.trunk
    members = [(prompts[i][len(trunk) :], completions[i]) for i in group.members]
    suffixes = list(dict.fromkeys(suffix for suffix, _ in members))
    branches = list(dict.fromkeys(member for member in members if len(member[1]) > 1))
    cache = DynamicCache(config=model.config)
    if trunk:
        ids = torch.tensor([trunk], device=model.device)
        hidden_states(model, input_ids=ids, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(suffixes))

    last = sorted({len(suffix) - 1 for suffix in suffixes})
    first, mask = _level(model, cache, suffixes, None, [len(trunk)] * len(suffixes), last)
    ends = {s: row * len(last) + last.index(len(s) - 1) for row, s in enumerate(suffixes)}
    states = first.flatten(0, 1)
    starts: dict[tuple[TokenIds, TokenIds], int] = {}
    if branches:
        at = torch.tensor([suffixes.index(s) for s, _ in branches], device=model.device)
        cache.batch_select_indices(at)
        inputs = [done[:-1] for _, done in branches]
        past = [len(trunk) + len(suffix) for suffix, _ in branches]
        width = max(map(len, inputs))
        later, _ = _level(model, cache, inputs, mask[at], past, list(range(width)))
        starts = {m: len(states) + row * width for row, m in enumerate(branches)}
        states = torch.cat([states, later.flatten(0, 1)])
    found = [
        [ends[suffix], *(starts.get((suffix, done), 0) + i for i in range(len(done) - 1))]
        for suffix, done in members
    ]
    return states, found


def _level(
    model: Any,
    cache: Any,
    rows: Sequence[TokenIds],
    past_mask: Tensor | None,
    past_lengths: Sequence[int],
    columns_kept: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Run `rows`, padded on the right, after the cache; returns states and the grown mask.

    Args:
        model: The model.
        cache: Keys and values of what comes before each row; grows by the rows.
        rows: New tokens, none empty.
        past_mask: True on real cached tokens [rows, cached]; None when all are.
        past_lengths: Real tokens before each row, which is where its positions start.
        columns_kept: Columns of the rows whose states are wanted, ascending.
    """
    device = model.device
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    columns = torch.arange(width, device=device)
    if past_mask is None:
        past_mask = torch.ones(len(rows), cache.get_seq_length(), dtype=torch.bool, device=device)
    mask = torch.cat([past_mask, columns < lengths[:, None]], dim=1)
    states = hidden_states(
        model,
        input_ids=ids,
        attention_mask=mask.long(),
        position_ids=torch.tensor(past_lengths, device=device)[:, None] + columns,
        past_key_values=cache,
        use_cache=True,
    )
    return states[:, torch.tensor(columns_kept, device=device)], mask
