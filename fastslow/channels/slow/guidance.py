"""Guidance on unsolved groups, from which policy gradient alone learns nothing.

What becomes of them is a key, `slow.guidance`; `Group.is_unsolved` says which they are.
"""

from collections.abc import Sequence

from fastslow.channels.slow.remedies.base import Figures
from fastslow.channels.slow.rollouts import Request, Rollout, draw_shared, groups_of
from fastslow.channels.slow.settings import GrpoConfig, HintsGuidance
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


def draw_with_hints(
    policy: Policy,
    requests: Sequence[Request],
    rollouts: Sequence[Rollout],
    settings: GrpoConfig,
    hints: HintsGuidance,
    seed: int,
) -> tuple[list[Rollout], Figures]:
    """Draw unsolved groups again with more and more of the gold answer, until they are not.

    Problems whose gold answer is shorter than `hints.min_tokens` are left alone. `rollouts` are
    all of an update, drawn for `requests`; `seed` is that of every draw.

    Returns:
        The rollouts to learn from: of a rescued group those under the hint that rescued it, of
        every other one those of `rollouts`. And the figures of the update.

    Source: GHPO (arXiv 2507.10628), whose code cuts the solution by characters. It keeps the
        rollouts of the last rung where that rescues nothing, which teach as little.
    """
    size, chosen = settings.group, list(rollouts)
    climbing = [
        place
        for place in unsolved(rollouts, settings)
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
