"""What becomes of the adapter at the start of a later stage, where it does not just continue."""

from collections.abc import Callable
from typing import Literal

from fastslow.channels.slow.remedies.base import Memory, Remedy, Stage


def adapter_policy(
    how: Literal["merge-then-new", "new-per-stage"], seed_of: Callable[[int], int]
) -> Remedy:
    """Freezes the adapter under a fresh one, which adds nothing, or puts it aside for its task.

    The first stage finds a fresh adapter anyway. `seed_of` takes the index of a stage.
    """

    def begin(stage: Stage, memory: Memory) -> None:
        adapters = stage.policy.adapters
        if adapters.owner is None:
            return
        renew = adapters.freeze if how == "merge-then-new" else adapters.put_aside
        renew(seed_of(stage.index))

    return Remedy(begin=begin, is_silent=True)
