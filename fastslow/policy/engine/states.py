"""The two layouts of one forward pass: rows padded on the right, and one packed sequence."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastslow.core.types import TokenIds
from fastslow.policy.engine import block_attention
from fastslow.policy.engine.head import hidden_states, plain_head
from fastslow.policy.engine.sizes import CPU, sizes_on
from fastslow.policy.engine.trie import PackedTrie, merge, pack


def padded_states(
    model: Any, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
) -> tuple[Tensor, list[list[int]]]:
    """The plain batch, padded on the right alone: nothing in it that a causal model could see.

    So there is no mask to respect, no position to shift and no window to push a token out of;
    every causal model reads such a batch as it reads one row.

    Hidden states, or logits from a model whose head is not plain.
    """
    rows = [
        prompt + completion[:-1] for prompt, completion in zip(prompts, completions, strict=True)
    ]
    width, first = max(map(len, rows)), min(map(len, prompts)) - 1
    ids = torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in rows])
    inputs = {"input_ids": ids.to(model.device), "use_cache": False}
    # [rows, width - first, width of the model]: from the shortest prompt's last token, which
    # predicts the first token of its completion
    if plain_head(model) is None:
        keep = {"logits_to_keep": width - first} if _keeps_logits(model) else {}
        states = model(**inputs, **keep).logits[:, first - width :]
    else:
        states = hidden_states(model, **inputs)[:, first:]
    # of each row the states from its own prompt's last token on, [nodes, width of the model]
    needed: list[int] = []
    nodes = []
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        start = row * (width - first) + len(prompt) - 1 - first
        nodes.append(list(range(len(needed), len(needed) + len(completion))))
        needed += range(start, start + len(completion))
    return states.flatten(0, 1)[torch.tensor(needed, device=model.device)], nodes


def _keeps_logits(model: Any) -> bool:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters


def packed_states(
    model: Any, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
) -> tuple[Tensor, list[list[int]]]:
    """The unique tokens as one sequence, attended to block by block; see `trie.py`."""
    packed = pack_inputs(prompts, completions, sizes_on(model.device).block_tokens)
    # a completion token is predicted by the node before it: from the prompt's last to its last but
    # one; many rows may share a node, whose state is needed once
    nodes_of_rows = [
        path[len(prompt) - 1 :] for prompt, path in zip(prompts, packed.paths, strict=True)
    ]
    needed = sorted({node for path in nodes_of_rows for node in path})
    index = {node: row for row, node in enumerate(needed)}
    device = model.device
    block_attention.install(model)
    states = hidden_states(
        model,
        input_ids=packed.tokens[None].to(device),
        attention_mask=torch.ones(1, 1, 1, 1, device=device),  # blocks bring their own
        position_ids=packed.depth[None].to(device),
        use_cache=False,
        blocks=block_attention.masked(packed.blocks, model),
    )[0]  # [1, nodes, hidden] -> [nodes, hidden]
    nodes = [[index[node] for node in path] for path in nodes_of_rows]
    return states[torch.tensor(needed, device=device)], nodes


def pack_inputs(
    prompts: Sequence[TokenIds], completions: Sequence[TokenIds], limit: int = CPU.block_tokens
) -> PackedTrie:
    """The trie of what the model must read, in blocks of at most `limit` tokens.

    Nothing follows the last token of a completion.
    """
    rows = zip(prompts, completions, strict=True)
    return pack(merge([prompt + completion[:-1] for prompt, completion in rows]), limit)
