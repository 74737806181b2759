"""Attention over a laid-out trie, block by block: what the mask would throw away is not computed.

Installed through transformers' own registry of attention functions. Without blocks it is SDPA as
transformers calls it, so a model that carries it behaves as before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from fastslow.policy.engine.trie import Block

ATTENTION = "fastslow_blocks"
"""Name of our attention in transformers' registry."""


@dataclass(frozen=True)
class MaskedBlock:
    """A block, its mask ready for the model at hand."""

    own: slice
    """The nodes that ask."""
    seen: tuple[slice, ...]
    """The nodes they look at, in pieces."""
    bias: Tensor
    """[heads per key head * own, seen]: 0 where a node may look, minus infinity elsewhere."""


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
    return tuple(
        MaskedBlock(
            block.own,
            block.seen,
            torch.zeros(block.mask.shape, dtype=model.dtype)
            .masked_fill(~block.mask, float("-inf"))
            .repeat(shared, 1)
            .to(model.device),
        )
        for block in blocks
    )


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

        plain: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **rest
        )
        return plain
    attended: Tensor = _BlockAttention.apply(  # type: ignore[no-untyped-call]  # torch's own
        query, key, value, scaling, blocks
    )
    return attended.transpose(1, 2).contiguous(), None


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
        for block in blocks:
            inputs = [query[:, :, block.own], _seen(key, block), _seen(value, block)]
            if any(ctx.needs_input_grad):
                inputs = [part.detach().requires_grad_() for part in inputs]
                with torch.enable_grad():
                    found = _attend(inputs, block.bias, scaling)
                ctx.graphs.append((block, inputs, found))
            else:
                found = _attend(inputs, block.bias, scaling)
            attended[:, :, block.own] = found.detach()
        ctx.shapes = query.shape, key.shape
        return attended

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        to_query = gradient.new_empty(ctx.shapes[0])
        to_key, to_value = gradient.new_zeros(ctx.shapes[1]), gradient.new_zeros(ctx.shapes[1])
        while ctx.graphs:
            block, inputs, found = ctx.graphs.pop()
            gradients = torch.autograd.grad(found, inputs, gradient[:, :, block.own])
            to_query[:, :, block.own] = gradients[0]
            start = 0
            for piece in block.seen:
                stop = start + piece.stop - piece.start
                to_key[:, :, piece] += gradients[1][:, :, start:stop]
                to_value[:, :, piece] += gradients[2][:, :, start:stop]
                start = stop
        return to_query, to_key, to_value, None, None


def _seen(states: Tensor, block: MaskedBlock) -> Tensor:
    """Keys or values that a block looks at; no copy where they are neighbours."""
    pieces = [states[:, :, piece] for piece in block.seen]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=2)


def _attend(inputs: Sequence[Tensor], bias: Tensor, scaling: float | None) -> Tensor:
    """Attention of one block's query, key and value.

    Heads that share a key head become rows of one query, so that keys are not repeated.
    """
    query, key, value = inputs
    heads, own, size = query.shape[1:]
    shared = query.reshape(1, key.shape[1], -1, size)
    found = scaled_dot_product_attention(shared, key, value, attn_mask=bias, scale=scaling)
    return found.reshape(1, heads, own, size)
