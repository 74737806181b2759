"""Taught rows: completions learned by their own tokens, or by what a teacher predicts along them.

Replay, learning without forgetting and every form of distillation are rows of this kind.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from fastslow.channels.slow.remedies.base import TaughtRow
from fastslow.policy.divergence import divergences
from fastslow.policy.engine.layouts import Predictions
from fastslow.policy.policy import Policy

ROWS_AT_ONCE = 64
"""Taught rows in one forward and backward pass."""


def teach(
    policy: Policy, rows: Sequence[TaughtRow], rows_at_once: int | None = None
) -> Iterator[Tensor]:
    """Weighted mean over rows of the mean over tokens, nats: differentiable in the weights.

    Comes in summands of some rows, to be differentiated one after the other: graphs of all rows
    together might not fit in memory. All teachers are asked first, since weights cannot be
    exchanged under a graph.
    """
    total = math.fsum(row.weight for row in rows)
    portions = list(_portions(rows, rows_at_once or ROWS_AT_ONCE))
    teachers = [_ask_teacher(policy, portion) for portion in portions]
    for portion, teacher in zip(portions, teachers, strict=True):
        prompts, completions = [r.prompt for r in portion], [r.completion for r in portion]
        if teacher is None:
            losses = -policy.completion_logprobs(prompts, completions)  # [rows, tokens], 0 on pads
        else:
            assert portion[0].teacher is not None
            predictions = policy.predict(prompts, completions)
            losses = divergences(predictions, teacher, portion[0].teacher.divergence)
        scale = [row.weight / (total * len(row.completion)) for row in portion]
        yield (losses.sum(-1) * torch.tensor(scale, device=losses.device)).sum()


@torch.no_grad()
def mean_loss(policy: Policy, rows: Sequence[TaughtRow]) -> float:
    """The value of `teach` alone."""
    return float(sum(float(summand) for summand in teach(policy, rows)))


def _portions(rows: Sequence[TaughtRow], size: int) -> Iterator[list[TaughtRow]]:
    """Rows of one kind of teacher together, in order, at most `size` of them."""

    def kind(row: TaughtRow) -> tuple[str, str]:
        if row.teacher is None:
            return "", ""
        weights = row.teacher.weights
        name = weights if isinstance(weights, str) else f"given {id(weights)}"
        return name, row.teacher.divergence

    kinds = {row_kind: number for number, row_kind in enumerate(dict.fromkeys(map(kind, rows)))}
    for _, same in groupby(sorted(rows, key=lambda row: kinds[kind(row)]), key=kind):
        alike = list(same)
        for start in range(0, len(alike), size):
            yield alike[start : start + size]


@torch.no_grad()
def _ask_teacher(policy: Policy, portion: Sequence[TaughtRow]) -> Predictions | None:
    """What the teacher of these rows predicts along their completions; None without one."""
    teachers = [row.teacher for row in portion if row.teacher is not None]
    if not teachers:
        return None
    with policy.as_of(teachers[0].weights):
        return policy.predict([t.prompt for t in teachers], [row.completion for row in portion])
