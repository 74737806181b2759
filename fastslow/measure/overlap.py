"""Overlap of updates: do two stages change the same weights most?

Streamed matrix by matrix over all stages at once, with the thresholds that `geometry.py` found.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from fastslow.errors import EvaluationError
from fastslow.measure.figures import Undefined, figure
from fastslow.measure.geometry import Deltas
from fastslow.types import Metric


@dataclass(frozen=True, slots=True)
class Overlap:
    """How much of their most changed weights two stages share."""

    first: str
    second: str
    jaccard: Metric
    """Shared weights over weights in either mask, in [0, 1]."""
    chance: float
    """What independent masks of these sizes would give."""


def chance_jaccard(first: float, second: float) -> float:
    """Expected overlap of two independent masks of these shares; p/(2 - p) for equal ones.

    Args:
        first: Share of weights in the mask, in (0, 1].
        second: The same of the other mask.
    """
    both = first * second
    return both / (first + second - both)


def top_overlaps(
    stages: Mapping[str, Deltas], thresholds: Mapping[str, float], share: float = 0.01
) -> list[Overlap]:
    """Jaccard overlap of the most changed weights, for every pair of stages, in one pass over each.

    Args:
        stages: The changes each stage made, over the same matrices.
        thresholds: Of each stage, at that share, as `measure_geometry` found it.
        share: One of `TOP_SHARES`. Ties with the smallest weight of a mask are all in it.

    Raises:
        EvaluationError: The stages changed different matrices.
    """
    sizes = dict.fromkeys(stages, 0)
    shared = dict.fromkeys(combinations(stages, 2), 0)
    total = 0
    for row in zip(*(deltas() for deltas in stages.values()), strict=True):
        if len({delta.name for delta in row}) != 1:
            raise EvaluationError(
                f"overlap of updates: got {', '.join(delta.name for delta in row)} at one place. "
                "Stages can be compared only if they adapt the same matrices."
            )
        masks = {
            name: delta.dense().abs() >= thresholds[name]
            for name, delta in zip(stages, row, strict=True)
        }
        total += row[0].base.numel()
        for name, mask in masks.items():
            sizes[name] += int(mask.sum())
        for first, second in shared:
            shared[first, second] += int((masks[first] & masks[second]).sum())
    return [
        _overlap(pair, common, sizes, total, thresholds, share) for pair, common in shared.items()
    ]


def _overlap(
    pair: tuple[str, str],
    common: int,
    sizes: Mapping[str, int],
    total: int,
    thresholds: Mapping[str, float],
    share: float,
) -> Overlap:
    first, second = pair

    def value() -> float:
        for name in pair:
            if thresholds[name] == 0:
                raise Undefined(f"{name} changed fewer than {share:.0%} of the weights")
        return common / (sizes[first] + sizes[second] - common)

    name = f"jaccard_top{round(100 * share)}"
    formula = "weights in both masks / weights in either (CPI-FT, arXiv 2508.21741)"
    chance = chance_jaccard(sizes[first] / total, sizes[second] / total)
    return Overlap(first, second, figure(name, formula, value), chance)
