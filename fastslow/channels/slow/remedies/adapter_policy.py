"""What becomes of the adapter at the start of a later stage, where it does not just continue."""

from collections.abc import Callable
from typing import Literal

from fastslow.channels.slow.remedies.base import Memory, Remedy, Stage


def adapter_policy(
    how: Literal["merge-then-new", "new-per-stage"], seed_of: Callable[[int], int]
) -> Remedy:
    """Freezes the adapter under a new one, or puts it aside for its task.

    Args:
        how: `merge-then-new` freezes what there is under a fresh adapter, which computes the same;
            `new-per-stage` puts it aside for its task and starts afresh from the base. The first
            stage finds a fresh adapter anyway.
        seed_of: Gives the seed of a stage's fresh adapter, by the stage's index.
    """

    def begin(stage: Stage, memory: Memory) -> None:
        adapters = stage.policy.adapters
        if adapters.owner is None:
            return
        renew = adapters.freeze if how == "merge-then-new" else adapters.put_aside
        renew(seed_of(stage.index))

    return Remedy(begin=begin, is_silent=True)
