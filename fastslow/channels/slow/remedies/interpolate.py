"""Interpolation: a stage's change is scaled to what serves this and the earlier tasks best.

WiSE-FT (arXiv 2109.01903), with the update itself scaled and not every weight: halfway between the
factors of two adapters is not halfway between their updates. So it is exact where the stage's
change is the trainable part.
"""

from statistics import fmean
from typing import ClassVar, Literal

from pydantic import PositiveInt

from fastslow.channels.slow.remedies.base import (
    AdapterPolicy,
    Ended,
    Memory,
    Remedy,
    RemedyConfig,
    RemedyPrice,
    StageSize,
    remedy,
)
from fastslow.channels.slow.remedies.shrink import ROUNDING
from fastslow.core.distributed import from_leader
from fastslow.core.keys import key


class InterpolateConfig(RemedyConfig):
    """The factor of a stage's change that maximizes the mean validation score of all tasks."""

    adapter_policies: ClassVar[tuple[AdapterPolicy, ...]] = ("merge-then-new",)
    why_not: ClassVar[str] = "scales a stage's own change, which must be the trainable part"

    kind: Literal["interpolate"] = key("interpolate", "name", "WiSE-FT, arXiv 2109.01903")
    """Which remedy."""
    steps: PositiveInt = key(10, "steps", "WiSE-FT")
    """Factors that are tried are 0, 1 / steps, and so on to 1."""

    @property
    def factors(self) -> tuple[float, ...]:
        """The factors that are tried, from 0 to 1."""
        return tuple(number / self.steps for number in range(self.steps + 1))

    def price(self, stage: StageSize) -> RemedyPrice:
        """The validation sample of every task, once for each factor."""
        tasks = stage.earlier + 1
        return RemedyPrice(
            rollouts=len(self.factors) * tasks * stage.validation * bool(stage.earlier)
        )


@remedy(name="interpolate", source="WiSE-FT, arXiv 2109.01903")
def interpolate(config: InterpolateConfig) -> Remedy:
    """Scales a stage's change to the best mean validation score of this and the earlier tasks."""

    def end(ended: Ended, memory: Memory) -> dict[str, float | None]:
        stage, adapters = ended.stage, ended.stage.policy.adapters
        tasks = (stage.task, *stage.earlier)
        if not stage.earlier:
            return {"factor": 1.0}
        weights = adapters.copied()
        scores: dict[float, float] = {}
        for factor in config.factors:
            adapters.scale(weights, factor)
            score = fmean(fmean(ended.score(task).values()) for task in tasks)
            scores[factor] = from_leader(score)
        best = max(scores.values())
        factor = min(f for f, score in scores.items() if score >= best - ROUNDING)
        adapters.scale(weights, factor)
        return {"factor": factor, "validation_before": scores[1.0], "validation_after": best}

    return Remedy(end=end)
