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

    Returns:
        Hidden states [nodes, hidden], and for each completion the rows that predict its tokens.
    """
    states_of_groups: list[Tensor] = []
    nodes: list[list[int]] = [[] for _ in prompts]
    offset = 0
    for group in shared_prefixes(prompts):
        states, group_nodes = _group_states(model, group, prompts, completions)
        for index, rows in zip(group.members, group_nodes, strict=True):
            nodes[index] = [offset + row for row in rows]
        states_of_groups.append(states)
        offset += len(states)
    return torch.cat(states_of_groups), nodes


def _group_states(
    model: Any, group: PrefixGroup, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
) -> tuple[Tensor, list[list[int]]]:
    """One text with its questions and completions."""
    from transformers import DynamicCache

    # distinct questions, and distinct (question, completion) of which some token is read
    trunk = group.trunk
    members = [(prompts[i][len(trunk) :], completions[i]) for i in group.members]
    questions = list(dict.fromkeys(question for question, _ in members))
    branches = list(dict.fromkeys(member for member in members if len(member[1]) > 1))

    # level 1: the text, one row; its cache is copied to [questions]
    cache = DynamicCache(config=model.config)
    if trunk:
        ids = torch.tensor([trunk], device=model.device)
        hidden_states(model, input_ids=ids, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(questions))

    # level 2: the questions; of [questions, width, hidden] only columns that end one are kept: the
    # last token of a question predicts the first of its completions
    last = sorted({len(question) - 1 for question in questions})
    ends, mask = _level(model, cache, questions, None, [len(trunk)] * len(questions), last)
    end_row = {q: row * len(last) + last.index(len(q) - 1) for row, q in enumerate(questions)}
    states = ends.flatten(0, 1)

    # level 3: the completions without their last tokens, [branches, width]; each branch takes a
    # copy of its question's cache, and autograd adds up the gradients of all copies
    first_row: dict[tuple[TokenIds, TokenIds], int] = {}
    if branches:
        of_branch = torch.tensor([questions.index(q) for q, _ in branches], device=model.device)
        cache.batch_select_indices(of_branch)
        inputs = [completion[:-1] for _, completion in branches]
        past = [len(trunk) + len(question) for question, _ in branches]
        width = max(map(len, inputs))
        later, _ = _level(model, cache, inputs, mask[of_branch], past, list(range(width)))
        first_row = {member: len(states) + row * width for row, member in enumerate(branches)}
        states = torch.cat([states, later.flatten(0, 1)])

    # rows of `states` that predict a completion: the question's end, then its own tokens in order
    nodes = []
    for question, completion in members:
        start = first_row.get((question, completion), 0)
        own_rows = range(start, start + len(completion) - 1)
        nodes.append([end_row[question], *own_rows])
    return states, nodes


def _level(
    model: Any,
    cache: Any,
    rows: Sequence[TokenIds],
    past_mask: Tensor | None,
    past_lengths: Sequence[int],
    columns_out: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Run `rows`, padded on the right, after the cache, which grows by them.

    `past_mask` is True on real cached tokens [rows, cached], None when all are; `past_lengths`
    counts them. Returns the states at some ascending columns of the rows, and the grown mask.
    """
    # [rows, width], padded on the right; positions continue each row's own past
    device = model.device
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    columns = torch.arange(width, device=device)
    positions = torch.tensor(past_lengths, device=device)[:, None] + columns
    # [rows, cached + width]: padding of earlier levels stays masked, this level's is masked now
    if past_mask is None:
        past_mask = torch.ones(len(rows), cache.get_seq_length(), dtype=torch.bool, device=device)
    mask = torch.cat([past_mask, columns < lengths[:, None]], dim=1)
    states = hidden_states(
        model,
        input_ids=ids,
        attention_mask=mask.long(),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
    )
    return states[:, torch.tensor(columns_out, device=device)], mask
