"""Geometry of an update: how concentrated it is, how many directions it has, what it shares.

All in float32 on the merged change of each weight matrix, streamed matrix by matrix. Shares are of
all adapted weights together, not matrix by matrix: the largest weights of a model are what a mask
would protect. "x % of weights unchanged" mostly reflects the number format, so counts of zeros
never go without energy shares, and the rounding to bfloat16 is measured by itself.

Source: arXiv 2505.11711 (sparsity of RL updates), 2509.04259 and 2602.03839 (that it is rounding).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from statistics import NormalDist, fmean

import torch

from fastslow.core.errors import EvaluationError
from fastslow.core.types import Metric
from fastslow.measure.model.magnitudes import Deltas, Magnitudes, Top, magnitudes_of, top_entries
from fastslow.measure.model.ranks import effective_rank, stable_rank
from fastslow.policy.adapter.deltas import WeightDelta

TOP_SHARES = (0.01, 0.05, 0.10)
TOLERANCES = {"sparsity_0": 0.0, "sparsity_1e_5": 1e-5, "sparsity_1e_4": 1e-4}
"""A weight that moved by no more than this counts as unchanged, by the figure's name."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The change of all adapted matrices."""

    metrics: Mapping[str, Metric]
    thresholds: Mapping[float, float]
    """Size of the smallest change among the top share of weights, by share."""
    num_weights: int
    """Adapted weights."""


def gaussian_energy_share(share: float) -> float:
    """Energy share of the largest `share` of Gaussian numbers: 2 t phi(t) + share.

    t is the half-normal's quantile, P(|z| > t) = share. The null of a dense random update; the
    product of random factors of low rank is more concentrated than that by itself.
    """
    normal = NormalDist()
    t = normal.inv_cdf(1 - share / 2)
    return 2 * t * normal.pdf(t) + share


def measure_geometry(deltas: Deltas) -> Geometry:
    """Every figure of an update of at least one matrix, in two passes over its matrices."""
    totals = _Totals()
    for delta in deltas():
        totals.add(delta)
    tops = top_entries(deltas, totals.magnitudes, TOP_SHARES)
    return Geometry(
        metrics=_metrics(totals, tops),
        thresholds={share: top.threshold for share, top in tops.items()},
        num_weights=totals.magnitudes.size,
    )


@dataclass
class _Totals:
    """Sums over all matrices seen so far, and the ranks of the changed ones."""

    magnitudes: Magnitudes = field(default_factory=Magnitudes)
    small: list[int] = field(default_factory=lambda: [0] * len(TOLERANCES))
    same_bf16: int = 0
    absolute: float = 0.0
    base_energy: float = 0.0
    stable_ranks: list[float] = field(default_factory=list)
    effective_ranks: list[float] = field(default_factory=list)

    def add(self, delta: WeightDelta) -> None:
        """Take one matrix in."""
        # [rows, columns] -> [weights]
        change, base = delta.dense().flatten(), delta.base.detach().flatten().float()
        magnitudes = magnitudes_of(change)
        self.magnitudes.add(magnitudes)
        size = change.abs()
        for index, tolerance in enumerate(TOLERANCES.values()):
            self.small[index] += len(size) - int(torch.count_nonzero(size > tolerance))
        merged = base + change
        same = merged.bfloat16() == base.bfloat16()
        self.same_bf16 += int(torch.count_nonzero(same))
        self.absolute += float(torch.linalg.vector_norm(merged, 1, dtype=torch.float64))
        self.base_energy += float(torch.linalg.vector_norm(base, 2, dtype=torch.float64)) ** 2
        if magnitudes.energy > 0:
            values = delta.singular_values()
            self.stable_ranks.append(stable_rank(values))
            self.effective_ranks.append(effective_rank(values))


def _metrics(totals: _Totals, tops: Mapping[float, Top]) -> dict[str, Metric]:
    energy, size = totals.magnitudes.energy, totals.magnitudes.size
    figures: dict[str, tuple[float | None, str]] = {}
    for share, top in tops.items():
        percent = round(100 * share)
        figures[f"energy_top{percent}_frac"] = (
            top.energy / energy if energy else None,
            f"energy of the {percent} % most changed weights of all / energy of the update; "
            f"a Gaussian update has {gaussian_energy_share(share):.4f} (arXiv 2505.11711)",
        )
    for (name, tolerance), count in zip(TOLERANCES.items(), totals.small, strict=True):
        formula = f"share of weights with |change| <= {tolerance:g} in float32 (arXiv 2505.11711)"
        figures[name] = (count / size, formula)
    figures |= {
        "unchanged_bf16_frac": (
            totals.same_bf16 / size,
            "share of weights whose bfloat16 value is the base's (after arXiv 2602.03839)",
        ),
        "stable_rank": (
            fmean(totals.stable_ranks) if energy else None,
            "sum s^2 / s_1^2, mean over changed matrices (Rudelson & Vershynin 2007)",
        ),
        "effective_rank": (
            fmean(totals.effective_ranks) if energy else None,
            "exp(entropy of s / sum s), mean over changed matrices (Roy & Vetterli 2007)",
        ),
        "relative_norm": (
            math.sqrt(energy / totals.base_energy) if totals.base_energy else None,
            "Frobenius norm of the change / of the base, over all adapted weights (ours)",
        ),
        "weight_mean_abs": (
            totals.absolute / size,
            "mean |w| of the adapted weights after the change (Dohare et al. 2024)",
        ),
    }
    reasons = {"relative_norm": "the base's weights are zero"}
    zero = "the update is zero everywhere"
    return {
        name: Metric(name, value, reasons.get(name, zero) if value is None else None, formula)
        for name, (value, formula) in figures.items()
    }


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
    """Expected overlap of two independent masks of these shares; p/(2 - p) for equal ones."""
    both = first * second
    return both / (first + second - both)


def top_overlaps(
    stages: Mapping[str, Deltas], thresholds: Mapping[str, float], share: float = 0.01
) -> list[Overlap]:
    """Jaccard overlap of the most changed weights, for every pair of stages, in one pass over each.

    `thresholds` are those that `measure_geometry` finds at this share, one of `TOP_SHARES`. Ties
    with the smallest weight of a mask are all in it.

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
    name = f"jaccard_top{round(100 * share)}"
    formula = "weights in both masks / weights in either (CPI-FT, arXiv 2508.21741)"
    overlaps = []
    for (first, second), common in shared.items():
        value, reason = None, None
        if unfit := [stage for stage in (first, second) if thresholds[stage] == 0]:
            reason = f"{unfit[0]} changed fewer than {share:.0%} of the weights"
        else:
            value = common / (sizes[first] + sizes[second] - common)
        chance = chance_jaccard(sizes[first] / total, sizes[second] / total)
        overlaps.append(Overlap(first, second, Metric(name, value, reason, formula), chance))
    return overlaps
