"""Guidance on groups that policy gradient alone learns nothing or little from.

Either they are drawn again with a hint, or their rollouts are taught by a teacher that knows the
answer. Which they are follows from what was drawn, or from a signal; see `guided`.
"""

from collections.abc import Sequence
from statistics import fmean

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from fastslow.channels.slow.group_settings import HintsGuidance
from fastslow.channels.slow.passes import PassSize
from fastslow.channels.slow.remedies.base import Figures, TaughtRow, Teacher
from fastslow.channels.slow.rollouts import Request, Rollout, draw_shared, groups_of
from fastslow.channels.slow.settings import GrpoConfig
from fastslow.channels.slow.signal_bands import SignalBands
from fastslow.channels.slow.teaching import teach
from fastslow.core.distributed import average_gradients, from_all, num_processes, own_share
from fastslow.core.prompts import BARE
from fastslow.core.seeds import derive_seed
from fastslow.policy.policy import Policy

HINT = "\n\nThe answer begins like this:\n"
"""Between a question and the beginning of its answer."""


def hint(answer: str, share: float) -> str:
    """What follows a question to hint at its answer; `share` of its characters, rounded down."""
    return HINT + answer[: int(share * len(answer))]


def unsolved(rollouts: Sequence[Rollout], settings: GrpoConfig) -> list[int]:
    """Places of the unsolved groups among the groups of an update."""
    groups = groups_of(rollouts, settings.group)
    limit = settings.difficulty.success_score
    return [place for place, group in enumerate(groups) if group.is_unsolved(limit)]


def guided(
    rollouts: Sequence[Rollout], settings: GrpoConfig, bands: SignalBands | None
) -> list[int]:
    """Places of the groups to guide: the unsolved ones, or with a signal those of hard problems."""
    if bands is None:
        return unsolved(rollouts, settings)
    groups = groups_of(rollouts, settings.group)
    return [place for place, group in enumerate(groups) if bands.is_hardest(group)]


def draw_with_hints(
    policy: Policy,
    requests: Sequence[Request],
    rollouts: Sequence[Rollout],
    places: Sequence[int],
    settings: GrpoConfig,
    hints: HintsGuidance,
    seed: int,
) -> tuple[list[Rollout], Figures]:
    """Draw groups again with more and more of the gold answer, until they are not unsolved.

    `places` are those of the groups to guide; problems among them whose gold answer is shorter than
    `hints.min_tokens` are left alone. `rollouts` are all of an update, drawn for `requests`; `seed`
    is that of every draw.

    Returns:
        The rollouts to learn from: of a rescued group those under the hint that rescued it, of
        every other one those of `rollouts`. And the figures of the update.

    Source: GHPO (arXiv 2507.10628), whose code cuts the solution by characters. It keeps the
        rollouts of the last rung where that rescues nothing, which teach as little.
    """
    size, chosen = settings.group, list(rollouts)
    climbing = [
        place
        for place in places
        if policy.renderer.num_tokens(rollouts[place * size].example.answer) >= hints.min_tokens
    ]
    figures, extra = {"guidance/hinted_groups": float(len(climbing))}, 0
    for rung in hints.rungs:
        rows = [place * size + slot for place in climbing for slot in range(size)]
        again = draw_shared(
            policy,
            [r._replace(hint=hint(r.example.answer, rung)) for r in (requests[n] for n in rows)],
            settings.temperature,
            [derive_seed(seed, "hint", f"{rung:g}", row) for row in rows],
        )
        extra += len(again)
        still = {climbing[place] for place in unsolved(again, settings)}
        for row, rollout in zip(rows, again, strict=True):
            if row // size not in still:
                chosen[row] = rollout
        figures[f"guidance/rescued_at_{rung:g}"] = float(len(climbing) - len(still))
        climbing = sorted(still)
    return chosen, figures | {"guidance/extra_rollouts": float(extra)}


def taught_rows(
    policy: Policy, rollouts: Sequence[Rollout], places: Sequence[int], settings: GrpoConfig
) -> list[TaughtRow]:
    """The rollouts of the groups to guide, each with a teacher that is shown the gold answer.

    The teacher has the weights as the stage found them, and reads the rollout's prompt with the
    problem and its answer as a last demonstration. What the student reads is a key,
    `slow.gradient_context`.

    Source: after HDPO (arXiv 2603.23871). A teacher that knows the answer is over-confident: the
        student loses its hedging where answers are reasoned (arXiv 2603.24472).
    """
    size, renderer = settings.group, policy.renderer
    return [
        TaughtRow(
            renderer.prompt_ids(BARE if settings.learns_bare else r.program, r.example.question),
            r.completion.token_ids,
            teacher=Teacher(
                "start", renderer.informed_ids(r.program, r.example.question, r.example.answer)
            ),
        )
        for place in places
        for r in rollouts[place * size : (place + 1) * size]
    ]


def add_gradient(
    policy: Policy, rows: Sequence[TaughtRow], strength: float, pass_size: PassSize
) -> Figures:
    """Add the gradient of teaching `rows` to what lies in `.grad`, both averaged over processes.

    Each process is given all rows, at least one, and learns its share of them.

    Returns:
        `guidance/loss`, before its `strength`: the mean over rows of the mean over tokens, in nats.
        `guidance/gradient_share`, the norm of what was added over that of what was there, unless
        that is 0.
    """
    weights, local = list(policy.adapters.trainable().values()), rows[own_share(len(rows))]
    # times this, means over local rows have the mean over all rows as their mean over processes
    factor = len(local) * num_processes() / len(rows)

    def passes(size: int) -> tuple[float, list[Tensor]]:
        loss, gradient = 0.0, [torch.zeros_like(weight) for weight in weights]
        for term in (factor * term for term in teach(policy, local, size)):
            loss += float(term.detach())
            summands = torch.autograd.grad(strength * term, weights, materialize_grads=True)
            for total, summand in zip(gradient, summands, strict=True):
                total += summand
        return loss, gradient

    loss, gradient = pass_size.fit(passes, undo=lambda: None)
    average_gradients(weights)  # the task's; its norm is that of the whole update then
    task = [weight.grad for weight in weights]
    for weight, guided in zip(weights, gradient, strict=True):
        weight.grad = guided
    average_gradients(weights)
    figures = {"guidance/loss": fmean(from_all(loss))}
    if task_norm := float(get_total_norm([grad for grad in task if grad is not None])):
        figures["guidance/gradient_share"] = float(get_total_norm(gradient)) / task_norm
    for weight, guided, grad in zip(weights, gradient, task, strict=True):
        weight.grad = guided if grad is None else grad + guided
    return figures
