"""KL to the stage's start on the new task's inputs: learning without forgetting (arXiv 1606.09282).

Its inputs are those of the new task, which arXiv 2607.04364 says does not protect
the old ones: offered as the comparator.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from fastslow.channels.slow.remedies.base import (
    Memory,
    Remedy,
    RemedyConfig,
    RemedyPrice,
    StageSize,
    TaughtRow,
    Teacher,
    Update,
    remedy,
)
from fastslow.core.keys import OURS, key
from fastslow.core.seeds import named_random


class KlStartConfig(RemedyConfig):
    """The policy as the stage found it teaches on the new task's own rows."""

    kind: Literal["kl_start"] = key("kl_start", "name", "LwF, arXiv 1606.09282")
    """Which remedy."""
    rows: PositiveInt = key(16, "rows per update", OURS)
    """Of the update's own rows, those on which the divergence is taken, per process."""
    strength: PositiveFloat = key(1.0, "weight", "LwF")
    """Weight of the added loss, KL(start || present), a mean in nats per token."""

    def price(self, stage: StageSize) -> RemedyPrice:
        """Rows are learned once more, and read by the teacher."""
        return RemedyPrice(rows=min(self.rows, stage.rows) if stage.earlier else 0)


@remedy(name="kl_start", source="learning without forgetting, arXiv 1606.09282")
def kl_start(config: KlStartConfig) -> Remedy:
    """Keeps the answers to the new task near what they were when its stage began."""

    def rows(update: Update, memory: Memory) -> Sequence[TaughtRow]:
        present = update.rows()
        size = min(config.rows, len(present))
        chosen = named_random(update.seed, "rows").sample(range(len(present)), size)
        return [
            TaughtRow(prompt, completion, teacher=Teacher("start", prompt, "forward"))
            for prompt, completion in (present[index] for index in sorted(chosen))
        ]

    return Remedy(rows=rows, strength=config.strength, needs_start=True)
