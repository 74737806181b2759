"""The output head as a function of hidden states: log-probabilities without the logits in memory.

Logits of a batch are its largest tensor by far, vocabulary x tokens, several times over with their
gradients. Here they exist for a few tokens at a time, forward only: the gradient of a
log-probability with respect to the hidden state is the target's row of the head minus the expected
row, and that is kept instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fastslow.policy.engine.sizes import CPU, sizes_on

CHUNK_NODES = CPU.head_nodes
"""Positions that are compared together in float64, on every device."""


def plain_head(model: Any) -> torch.nn.Linear | None:
    """The head, if logits are exactly this frozen linear layer of the last hidden states.

    Tested on two tokens, since models scale or bend their logits in many ways; the answer is kept
    with the model.
    """
    head = model.get_output_embeddings()
    if type(head) is not torch.nn.Linear or any(p.requires_grad for p in head.parameters()):
        return None
    if not hasattr(model, "_fastslow_plain"):
        model._fastslow_plain = _gives_logits(model, head)
    return head if model._fastslow_plain else None


def hidden_states(model: Any, **inputs: Any) -> Float[Tensor, "rows tokens hidden"]:
    """Last hidden states of the model's decoder, adapter included, before its head."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder = base.get_decoder()
    if decoder is base or not hasattr(decoder, "config"):  # a family that names none
        every: tuple[Tensor, ...] = base(**inputs, output_hidden_states=True).hidden_states
        return every[-1]
    states: Tensor = decoder(**inputs).last_hidden_state
    return states


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Within it nothing is random (dropout, noise of routers); the mode is restored.

    Losses are computed in it too: with dropout the policy that learns is not the one that was
    sampled, and its KL to the base is not 0 before the first update.
    """
    if not model.training:
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()


@torch.no_grad()
def _gives_logits(model: Any, head: torch.nn.Linear) -> bool:
    ids = torch.arange(2, device=model.device)[None]
    with evaluating(model):
        logits = model(input_ids=ids, use_cache=False).logits
        try:
            ours = head(hidden_states(model, input_ids=ids, use_cache=False))
        except Exception:  # whatever stands between decoder and head is not the head alone
            return False
    # the same product of the same numbers: a cap or a scale shows however small the logits are
    return logits.shape == ours.shape and torch.allclose(logits, ours, rtol=1e-6, atol=1e-8)


def score_targets(
    hidden: Float[Tensor, "nodes hidden"],
    head: torch.nn.Linear,
    nodes: Int[Tensor, " targets"],
    targets: Int[Tensor, " targets"],
    temperature: float = 1.0,
) -> tuple[Float[Tensor, " targets"], Float[Tensor, " nodes"]]:
    """Natural-log probability of each target at its node, and each node's entropy in nats.

    `nodes` says which row of the last hidden states predicts each target; a row may predict
    several. Logits are divided by the temperature. The head is frozen; the log-probabilities are
    differentiable in `hidden`, the entropies carry no gradient.
    """
    score = _Scores.apply
    scores: tuple[Tensor, Tensor] = score(  # type: ignore[no-untyped-call]  # torch's own
        hidden, head.weight, head.bias, nodes, targets, temperature
    )
    return scores


class _Scores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        nodes: Tensor,
        targets: Tensor,
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        # e_n = sum over the vocabulary of p_n(v) w_v: the expected row of the head, [nodes, hidden]
        expected = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        entropies = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        logprobs = torch.empty(len(nodes), dtype=torch.float32, device=hidden.device)
        # Two buffers [chunk, vocabulary], used again and again: fresh memory of this size costs
        # more than what is computed in it.
        most = sizes_on(hidden.device).head_nodes
        shape = (min(most, len(hidden)), len(weight))
        raw = torch.empty(shape, dtype=hidden.dtype, device=hidden.device)
        likely = torch.empty(shape, dtype=torch.float32, device=hidden.device)
        for start in range(0, len(hidden), most):
            chunk = slice(start, start + most)
            size = len(hidden[chunk])
            # [chunk, hidden] x [hidden, vocabulary] -> log p, [chunk, vocabulary]
            logits = torch.mm(hidden[chunk], weight.T, out=raw[:size])
            if bias is not None:
                logits += bias
            logits = logits.float()
            if temperature != 1.0:
                logits /= temperature
            logits -= logits.logsumexp(-1, keepdim=True)
            # pick the targets whose node is in this chunk, [targets in the chunk]
            matches = ((nodes >= start) & (nodes < start + most)).nonzero()[:, 0]
            logprobs[matches] = logits[nodes[matches] - start, targets[matches]]
            # p, then its expected row of the head, then its entropy; `logits` is overwritten
            chances = torch.exp(logits, out=likely[:size])
            if expected is not None:
                expected[chunk] = chances.to(weight.dtype) @ weight
            entropies[chunk] = -logits.mul_(chances).sum(-1)
        if expected is not None:
            ctx.save_for_backward(expected, weight, nodes, targets)
            ctx.temperature = temperature
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor, _: Tensor
    ) -> tuple[Tensor, None, None, None, None, None]:
        # d log p_n(t) / d h_n = (w_t - e_n) / temperature, with g_t the gradient of each target
        expected, weight, nodes, targets = ctx.saved_tensors
        gradient = (gradient / ctx.temperature).to(expected.dtype)
        # -e_n times the sum of g_t over the targets of node n, [targets] -> [nodes]
        per_node = gradient.new_zeros(len(expected)).index_add_(0, nodes, gradient)
        to_hidden = expected * -per_node[:, None]
        # plus g_t w_t, [targets, hidden] -> [nodes, hidden]
        to_hidden.index_add_(0, nodes, gradient[:, None] * weight[targets])
        return to_hidden, None, None, None, None, None
