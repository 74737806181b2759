"""Attention over a packed trie, block by block: scores the mask would throw away are not computed.

Installed through transformers' own registry of attention functions. Without blocks it is SDPA as
transformers calls it, so a model that carries it behaves as before; on a card its gradients then
have the same bits every time. Only models that were proven to take it carry it (`sharing.py`).
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fastslow.policy.engine.sizes import sizes_on
from fastslow.policy.engine.trie import Block
from fastslow.policy.placement import adds_in_any_order, in_one_order

ATTENTION = "fastslow_blocks"
"""Name of our attention in transformers' registry."""


MaskedBlock: TypeAlias = tuple[Block, Tensor]
"""A block and its mask for the model at hand: 0 where a node may attend, minus infinity elsewhere.
[queries, keys] where keys are copied for the heads that share them, else
[heads per key head * queries, keys]."""


def install(model: Any) -> None:
    """Let `model` attend by blocks when it is given some; a second time does nothing."""
    if model.config._attn_implementation == ATTENTION:
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.config._attn_implementation = ATTENTION


def masked(blocks: Sequence[Block], model: Any) -> tuple[MaskedBlock, ...]:
    """The blocks with their masks as the model's attention takes them."""
    config = model.config
    shared = config.num_attention_heads // (
        getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    )
    copies_keys = sizes_on(model.device).copies_keys

    def bias(block: Block) -> Tensor:
        closed = ~block.mask.to(model.device)
        zeros = torch.zeros(closed.shape, dtype=model.dtype, device=model.device)
        mask = zeros.masked_fill_(closed, float("-inf"))
        return mask if copies_keys else mask.repeat(shared, 1)

    return tuple((block, bias(block)) for block in blocks)


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    blocks: Sequence[MaskedBlock] | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """The attention hook of transformers: states [1, heads, nodes, size], fewer heads for keys.

    Returns:
        [1, nodes, heads, size], and no attention weights.
    """
    if blocks is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            states: Tensor = sdpa_attention_forward(
                module, query, key, value, attention_mask, scaling=scaling, **rest
            )[0]
            return states

        if not (torch.is_grad_enabled() and adds_in_any_order(query.device)):
            return plain(query, key, value), None
        repeated: Tensor = _InOneOrder.apply(plain, query, key, value)  # type: ignore[no-untyped-call]
        return repeated, None
    attended: Tensor = _BlockAttention.apply(  # type: ignore[no-untyped-call]  # torch's own
        query, key, value, scaling, blocks
    )
    return attended.transpose(1, 2).contiguous(), None


class _InOneOrder(torch.autograd.Function):
    """Attention with a small graph of its own, whose way back adds up in one order."""

    @staticmethod
    def forward(ctx: Any, attend: Callable[..., Tensor], *states: Tensor) -> Tensor:
        leaves = [tensor.detach().requires_grad_() for tensor in states]
        with torch.enable_grad(), in_one_order():
            output = attend(*leaves)
        ctx.graph = leaves, output
        return output.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        leaves, output = ctx.graph
        del ctx.graph
        with in_one_order():
            return None, *torch.autograd.grad(output, leaves, gradient)


class _BlockAttention(torch.autograd.Function):
    """Attends block by block; each block keeps its own small graph for the way back.

    Autograd by itself would give every block's gradient the size of the whole sequence.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
        blocks: Sequence[MaskedBlock],
    ) -> Tensor:
        attended = torch.empty_like(query, memory_format=torch.contiguous_format)
        ctx.graphs = []
        for block, bias in blocks:
            # [1, heads, queries, size], and [1, key heads, keys, size] twice
            inputs = [query[:, :, block.queries], _keys(key, block), _keys(value, block)]
            if any(ctx.needs_input_grad):
                # cut off from the outer graph: leaves of a graph of this block alone
                inputs = [states.detach().requires_grad_() for states in inputs]
                with torch.enable_grad(), in_one_order():
                    output = _attend(inputs, bias, scaling)
                ctx.graphs.append((block, inputs, output))
            else:
                output = _attend(inputs, bias, scaling)
            # blocks partition the queries, so every row of `attended` is written once
            attended[:, :, block.queries] = output.detach()
        ctx.shapes = query.shape, key.shape
        return attended

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        to_query = gradient.new_empty(ctx.shapes[0])
        to_key, to_value = gradient.new_zeros(ctx.shapes[1]), gradient.new_zeros(ctx.shapes[1])
        while ctx.graphs:
            block, inputs, output = ctx.graphs.pop()  # its memory goes as soon as it is used
            with in_one_order():
                gradients = torch.autograd.grad(output, inputs, gradient[:, :, block.queries])
            # a node is a query once: its gradient is set
            to_query[:, :, block.queries] = gradients[0]
            # it is a key of many blocks: gradients of the pieces are added where they came from
            start = 0
            for piece in block.keys:
                stop = start + piece.stop - piece.start
                to_key[:, :, piece] += gradients[1][:, :, start:stop]
                to_value[:, :, piece] += gradients[2][:, :, start:stop]
                start = stop
        return to_query, to_key, to_value, None, None


def _keys(states: Tensor, block: Block) -> Tensor:
    """Keys or values that a block attends to; no copy where they are neighbours."""
    pieces = [states[:, :, piece] for piece in block.keys]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)


def _attend(inputs: Sequence[Tensor], bias: Tensor, scaling: float | None) -> Tensor:
    """Attention of one block's query, key and value.

    With one mask for every head of a key head those heads become rows of one query, so that keys
    are not copied.
    """
    query, key, value = inputs
    heads, queries, size = query.shape[1:]
    if len(bias) == queries:
        key, value = (_for_heads(states, heads) for states in (key, value))
        return scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scaling)
    # [1, heads, queries, size] -> [1, key heads, heads per key head * queries, size], and back
    shared = query.reshape(1, key.shape[1], -1, size)
    output = scaled_dot_product_attention(shared, key, value, attn_mask=bias, scale=scaling)
    return output.reshape(1, heads, queries, size)


def _for_heads(states: Tensor, heads: int) -> Tensor:
    """Each key head once for every head that shares it, [1, heads, keys, size]."""
    _, key_heads, keys, size = states.shape
    copies = states[:, :, None].expand(1, key_heads, heads // key_heads, keys, size)
    return copies.reshape(1, heads, keys, size)
