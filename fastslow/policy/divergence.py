"""Divergence of two predictions of the same completions, exact over the vocabulary.

Without logits in memory, as `engine/head.py` has it for log-probabilities: they exist for some
positions at a time, forward only. With p the student's and q the teacher's distribution at a
position, h the student's hidden state and W the head,

    reverse: value = sum p (ln p - ln q);   d value / d h = W^T [p (ln p - ln q - value)]
    forward: value = sum q (ln q - ln p);   d value / d h = W^T [p - q]
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fastslow.policy.engine.head import CHUNK_NODES
from fastslow.policy.engine.layouts import Predictions


def divergences(
    student: Predictions, teacher: Predictions, which: Literal["reverse", "forward"]
) -> Float[Tensor, "rows tokens"]:
    """KL(student || teacher), or forward KL(teacher || student), at each completion token, in nats.

    Both predicted the same completions, the prompts may differ. One row per completion, 0 on
    padding; differentiable in the student's states, the teacher's are taken as they are.
    """
    # rows share positions: every distinct pair of a student's and a teacher's is computed once
    pairs: dict[tuple[int, int], int] = {}
    indices = [
        [pairs.setdefault(pair, len(pairs)) for pair in zip(ours, theirs, strict=True)]
        for ours, theirs in zip(student.nodes, teacher.nodes, strict=True)
    ]
    device = student.states.device
    ours, theirs = torch.tensor(list(pairs), device=device).T  # [pairs] each
    is_forward = which == "forward"
    if student.head is None:  # states are logits
        with torch.no_grad():
            log_q = _log_softmax(teacher.states[theirs])
        values, _ = _compare(_log_softmax(student.states[ours]), log_q, is_forward=is_forward)
    else:
        head = student.head
        apply = _Divergences.apply
        values = apply(  # type: ignore[no-untyped-call]  # torch's own
            student.states, teacher.states, head.weight, head.bias, ours, theirs, is_forward
        )
    return _by_row(values, indices)


def _by_row(values: Float[Tensor, " pairs"], indices: Sequence[Sequence[int]]) -> Tensor:
    """[pairs] -> [rows, tokens], 0 on padding."""
    width = max(map(len, indices))
    padded = torch.cat([values, values.new_zeros(1)])
    rows = [[*row, *[len(values)] * (width - len(row))] for row in indices]
    return padded[torch.tensor(rows, device=values.device)]


def _log_softmax(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32))


def _compare(
    log_p: Float[Tensor, "pairs vocab"], log_q: Float[Tensor, "pairs vocab"], *, is_forward: bool
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, "pairs vocab"]]:
    """The value at each position, and its gradient with respect to the student's logits."""
    gap = log_p - log_q
    if is_forward:
        q = log_q.exp()
        return -(q * gap).sum(-1), log_p.exp() - q
    p = log_p.exp()
    values = (p * gap).sum(-1)
    return values, p * (gap - values[:, None])


class _Divergences(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student: Float[Tensor, "nodes hidden"],
        teacher: Float[Tensor, "teacher_nodes hidden"],
        weight: Float[Tensor, "vocab hidden"],
        bias: Tensor | None,
        ours: Int[Tensor, " pairs"],
        theirs: Int[Tensor, " pairs"],
        is_forward: bool,
    ) -> Float[Tensor, " pairs"]:
        number = torch.promote_types(student.dtype, torch.float32)
        values = torch.empty(len(ours), dtype=number, device=student.device)
        # d value / d hidden, [pairs, hidden]
        pulls = student.new_empty(len(ours), student.shape[1]) if ctx.needs_input_grad[0] else None
        for start in range(0, len(ours), CHUNK_NODES):
            chunk = slice(start, start + CHUNK_NODES)
            # [chunk, hidden] x [hidden, vocab] -> [chunk, vocab]
            log_p = _log_softmax(torch.nn.functional.linear(student[ours[chunk]], weight, bias))
            log_q = _log_softmax(torch.nn.functional.linear(teacher[theirs[chunk]], weight, bias))
            values[chunk], to_logits = _compare(log_p, log_q, is_forward=is_forward)
            if pulls is not None:
                pulls[chunk] = to_logits.to(weight.dtype) @ weight
        ctx.save_for_backward(pulls, ours)
        ctx.num_nodes = len(student)
        return values

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        pulls, ours = ctx.saved_tensors
        # a position may be in several pairs: their gradients add up, [pairs, hidden] -> [nodes, ..]
        to_states = pulls.new_zeros(ctx.num_nodes, pulls.shape[1])
        to_states.index_add_(0, ours, gradient[:, None].to(pulls.dtype) * pulls)
        return to_states, None, None, None, None, None, None
