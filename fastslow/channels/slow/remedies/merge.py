"""Merging: every stage trains an adapter from the base, and one combination of them is deployed.

Linear combinations of low-rank updates are low-rank updates: their factors stand side by side, and
nothing is rounded away. TIES and DARE work on single weights, whose result has to be cut back.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import PositiveInt

from fastslow.channels.slow.remedies.base import (
    AdapterPolicy,
    Ended,
    Memory,
    Remedy,
    RemedyConfig,
    RemedyPrice,
    Stage,
    StageSize,
    remedy,
)
from fastslow.channels.slow.remedies.shrink import ROUNDING
from fastslow.core.distributed import from_leader
from fastslow.core.keys import key

if TYPE_CHECKING:
    from torch import Tensor

FACTORS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of task arithmetic, those that are tried."""


class MergeConfig(RemedyConfig):
    """One adapter for all tasks, combined from one adapter of each stage."""

    adapter_policies: ClassVar[tuple[AdapterPolicy, ...]] = ("new-per-stage",)
    why_not: ClassVar[str] = "combines adapters that were each trained from the base"

    kind: Literal["merge"] = key("merge", "name", "arXiv 2203.05482, model soups")
    """Which remedy."""
    how: Literal["linear", "task_arithmetic", "slerp", "ties", "dare"] = key(
        "linear", "name", "the mean: arXiv 2203.05482"
    )
    """The mean of the updates; their sum times the factor that maximizes the mean validation score
    (arXiv 2212.04089); spherical interpolation, one stage after the other; TIES (arXiv 2306.01708);
    or the mean of updates that lost single weights at random (DARE, arXiv 2311.03099)."""
    density: float = key(0.2, "share of weights", "TIES; DARE drops half: 0.5", gt=0, lt=1)
    """`ties` and `dare`: of an update's weights, those that are left."""
    rank: PositiveInt | None = key(None, "dimensions", "the ranks of all stages together")
    """`ties` and `dare`: the rank to which the result is cut back."""

    def price(self, stage: StageSize) -> RemedyPrice:
        """The validation sample of every task, once for each factor of task arithmetic."""
        is_tried = self.how == "task_arithmetic" and stage.earlier
        scorings = len(FACTORS) * (stage.earlier + 1) if is_tried else 0
        return RemedyPrice(rollouts=scorings * stage.validation)


@remedy(name="merge", source="arXiv 2203.05482, 2212.04089, 2306.01708, 2311.03099")
def merge(config: MergeConfig) -> Remedy:
    """Deploys one combination of the adapters that all stages trained from the base."""

    def begin(stage: Stage, memory: Memory) -> None:
        adapters = stage.policy.adapters
        if memory.tensors and adapters.owner is None:  # what is deployed is the combination
            adapters.restart(stage.seed)

    def end(ended: Ended, memory: Memory) -> dict[str, float | None]:
        from fastslow.policy.adapter import merging

        stage, adapters = ended.stage, ended.stage.policy.adapters
        for name, weight in adapters.copied().items():
            memory.tensors[f"{stage.index}/{name}"] = weight
        updates = _updates(memory)
        if len(updates) == 1:
            return {"adapters": 1.0}
        figures: dict[str, float | None] = {"adapters": float(len(updates))}
        if config.how in ("ties", "dare"):
            merged, energy = merging.sparse_merge(
                updates, config.how, config.density, config.rank, stage.seed
            )
            adapters.share(merged, stage.seed)
            return figures | {"energy_kept": energy}
        if config.how == "slerp":
            adapters.share(merging.concatenation(updates, merging.slerp(updates)), stage.seed)
            return figures
        if config.how == "linear":
            mean = merging.alike(updates, 1 / len(updates))
            adapters.share(merging.concatenation(updates, mean), stage.seed)
            return figures
        factor, score = best_factor(ended, updates)
        total = merging.alike(updates, factor)
        adapters.share(merging.concatenation(updates, total), stage.seed)
        return figures | {"factor": factor, "validation": score}

    return Remedy(begin=begin, end=end)


def best_factor(ended: Ended, updates: "Sequence[Mapping[str, Tensor]]") -> tuple[float, float]:
    """The factor of the summed updates with the best mean validation score; ties to the smaller."""
    from fastslow.policy.adapter import merging

    stage = ended.stage
    tasks, scores = (stage.task, *stage.earlier), {}
    for factor in FACTORS:
        total = merging.alike(updates, factor)
        stage.policy.adapters.share(merging.concatenation(updates, total), stage.seed)
        score = fmean(fmean(ended.score(task).values()) for task in tasks)
        scores[factor] = from_leader(score)
    best = max(scores.values())
    return min(f for f, score in scores.items() if score >= best - ROUNDING), best


def _updates(memory: Memory) -> "list[dict[str, Tensor]]":
    """The weights that each stage trained, in order of the stages."""
    stages: dict[int, dict[str, Tensor]] = {}
    for path, tensor in memory.tensors.items():
        index, _, name = path.partition("/")
        stages.setdefault(int(index), {})[name] = tensor
    return [stages[index] for index in sorted(stages)]
