"""Geometry of an update: how concentrated it is, how many directions it has, what it shares.

All in float32 on the merged change of each weight matrix, streamed matrix by matrix. Shares are of
all adapted weights together, not matrix by matrix: the largest weights of a model are what a mask
would protect. "x % of weights unchanged" mostly reflects the number format, so counts of zeros
never go without energy shares, and the rounding to bfloat16 is measured by itself.

Source: arXiv 2505.11711 (sparsity of RL updates), 2509.04259 and 2602.03839 (that it is rounding).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from statistics import NormalDist, fmean
from typing import TypeAlias

import torch
from torch import Tensor

from fastslow.core.errors import EvaluationError
from fastslow.core.types import Metric
from fastslow.measure.model.ranks import effective_rank, stable_rank
from fastslow.policy.adapter.deltas import WeightDelta

Deltas: TypeAlias = Callable[[], Iterable[WeightDelta]]
"""Starts one more pass over the changes of all matrices, in the same order every time."""
TOP_SHARES = (0.01, 0.05, 0.10)
TOLERANCES = {"sparsity_0": 0.0, "sparsity_1e_5": 1e-5, "sparsity_1e_4": 1e-4}
"""A weight that moved by no more than this counts as unchanged, by the figure's name."""
BINS = 1 << 15
"""Bins of |change|: the upper half of a float's bits, sign aside; each is under 1 % wide."""


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
    tops = _tops(deltas, totals)
    return Geometry(
        metrics=_metrics(totals, tops),
        thresholds={share: threshold for share, (threshold, _) in tops.items()},
        num_weights=totals.size,
    )


@dataclass
class _Totals:
    """Sums over all matrices seen so far, and the ranks of the changed ones."""

    size: int = 0
    counts: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.int64))
    energies: Tensor = field(default_factory=lambda: torch.zeros(BINS, dtype=torch.float64))
    small: list[int] = field(default_factory=lambda: [0] * len(TOLERANCES))
    same_bf16: int = 0
    absolute: float = 0.0
    base_energy: float = 0.0
    stable_ranks: list[float] = field(default_factory=list)
    effective_ranks: list[float] = field(default_factory=list)

    @property
    def energy(self) -> float:
        return float(self.energies.sum())

    def add(self, delta: WeightDelta) -> None:
        """Take one matrix in."""
        # [rows, columns] -> [weights]; histograms of |change|: how many and how much energy a bin
        change, base = delta.dense().flatten(), delta.base.detach().flatten().float()
        size = change.abs()
        bins = _bins(size)
        energies = torch.bincount(bins, weights=size.double().square_(), minlength=BINS).cpu()
        self.counts += torch.bincount(bins, minlength=BINS).cpu()
        self.energies += energies
        self.size += len(size)
        for index, tolerance in enumerate(TOLERANCES.values()):
            self.small[index] += int((size <= tolerance).sum())
        merged = base + change
        self.same_bf16 += int((merged.bfloat16() == base.bfloat16()).sum())
        self.absolute += float(merged.abs().sum(dtype=torch.float64))
        self.base_energy += float(base.square().sum(dtype=torch.float64))
        if float(energies.sum()) > 0:
            values = delta.singular_values()
            self.stable_ranks.append(stable_rank(values))
            self.effective_ranks.append(effective_rank(values))


def _bins(sizes: Tensor) -> Tensor:
    """Bin of each size; larger sizes are in the same or a later bin."""
    return sizes.view(torch.int32).bitwise_right_shift(16).long()


def _tops(deltas: Deltas, totals: _Totals) -> dict[float, tuple[float, float]]:
    """Threshold and energy of the top weights, by share: exact, from one more pass.

    The histogram says in which bin the smallest of the top weights lies and what lies above it; the
    second pass collects that bin alone.
    """
    # [bins] from the largest sizes down: how many weights lie in a bin or above it
    from_top = totals.counts.flip(0).cumsum(0)
    counts = {share: max(1, math.floor(share * totals.size)) for share in TOP_SHARES}
    places = {
        share: BINS - 1 - int(torch.searchsorted(from_top, count))
        for share, count in counts.items()
    }

    # the second pass: all sizes of the bins in which a top share ends; bin 0 holds no change at all
    sizes: dict[int, list[Tensor]] = {place: [] for place in places.values() if place > 0}
    if sizes:
        for delta in deltas():
            size = delta.dense().flatten().abs()
            bins = _bins(size)
            for place, members in sizes.items():
                members.append(size[bins == place].cpu())

    # whole bins above by their sums, and of the bin itself the largest that are still missing
    tops = {}
    for share, place in places.items():
        above, energy = int(totals.counts[place + 1 :].sum()), totals.energies[place + 1 :].sum()
        threshold = 0.0
        if place > 0:
            largest = torch.topk(torch.cat(sizes[place]), counts[share] - above).values
            threshold = float(largest[-1])
            energy = energy + largest.double().square().sum()
        tops[share] = (threshold, float(energy))
    return tops


def _metrics(totals: _Totals, tops: Mapping[float, tuple[float, float]]) -> dict[str, Metric]:
    energy, size = totals.energy, totals.size
    figures: dict[str, tuple[float | None, str]] = {}
    for share, (_, top_energy) in tops.items():
        percent = round(100 * share)
        figures[f"energy_top{percent}_frac"] = (
            top_energy / energy if energy else None,
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
