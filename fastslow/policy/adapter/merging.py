"""One update out of several: exact by concatenation, or on single weights and cut back to a rank.

An update is given by its factors, B [rows, rank] and A [rank, columns] of every module, by the
names of the trainable weights.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from fastslow.core.seeds import seeded

Update: TypeAlias = Mapping[str, Tensor]
Coefficients: TypeAlias = Mapping[str, Sequence[float]]
"""By the name of each B, the factor of every update in that module."""

LEFT, RIGHT = ".lora_B.", ".lora_A."
SMALL_ANGLE = 1e-3
"""Below it spherical interpolation is linear, in radians."""


def _modules(update: Update) -> Iterable[tuple[str, str]]:
    """The names of B and A of every module, sorted."""
    return [(name, name.replace(LEFT, RIGHT)) for name in sorted(update) if LEFT in name]


def alike(updates: Sequence[Update], coefficient: float) -> Coefficients:
    """The same factor everywhere."""
    return {name_b: [coefficient] * len(updates) for name_b, _ in _modules(updates[0])}


def concatenation(updates: Sequence[Update], coefficients: Coefficients) -> dict[str, Tensor]:
    """The sum of the updates times their coefficients, exactly: [c1 B1 | c2 B2] [A1 ; A2]."""
    merged = {}
    for name_b, name_a in _modules(updates[0]):
        factors = zip(updates, coefficients[name_b], strict=True)
        merged[name_b] = torch.cat([update[name_b] * factor for update, factor in factors], dim=1)
        merged[name_a] = torch.cat([update[name_a] for update in updates], dim=0)
    return merged


def inner_products(updates: Sequence[Update], name_b: str) -> list[list[float]]:
    """Of the updates of one module with each other, as dense matrices, without making these.

    <B1 A1, B2 A2> = tr((B1^T B2)(A2 A1^T)).
    """
    name_a = name_b.replace(LEFT, RIGHT)

    def inner(u: Update, v: Update) -> float:
        ranks = (u[name_b].T @ v[name_b]).double()  # [rank, rank]
        return float((ranks * (u[name_a] @ v[name_a].T).double()).sum())

    return [[inner(u, v) for v in updates] for u in updates]


def slerp(updates: Sequence[Update]) -> Coefficients:
    """Spherical interpolation per module, one update after the other, each with an equal say."""
    result: dict[str, Sequence[float]] = {}
    for name_b, _ in _modules(updates[0]):
        products = inner_products(updates, name_b)
        factors = [1.0]
        for new in range(1, len(updates)):
            merged_new = sum(f * products[i][new] for i, f in enumerate(factors))
            merged = sum(
                f * g * products[i][j] for i, f in enumerate(factors) for j, g in enumerate(factors)
            )
            old_share, new_share = slerp_pair(merged, merged_new, products[new][new], 1 / (new + 1))
            factors = [*(old_share * factor for factor in factors), new_share]
        result[name_b] = factors
    return result


def slerp_pair(first: float, product: float, second: float, share: float) -> tuple[float, float]:
    """Coefficients of two vectors, of which the second has this share of the way.

    `first` and `second` are their inner products with themselves, `product` that with each other.
    """
    norms = math.sqrt(first * second)
    angle = math.acos(max(-1.0, min(1.0, product / norms))) if norms > 0 else 0.0
    if angle < SMALL_ANGLE or math.pi - angle < SMALL_ANGLE:  # parallel: no plane to turn in
        return 1 - share, share
    return math.sin((1 - share) * angle) / math.sin(angle), math.sin(share * angle) / math.sin(
        angle
    )


def sparse_merge(
    updates: Sequence[Update],
    how: Literal["ties", "dare"],
    density: float,
    rank: int | None,
    seed: int,
) -> tuple[dict[str, Tensor], float]:
    """TIES or DARE on the dense update of each module, cut back to a rank by its singular values.

    `rank` None takes as many as all updates have together.

    Returns:
        The factors, and the share of the merged updates' energy that they keep, in [0, 1].
    """
    from peft.utils.merge_utils import dare_linear, ties

    merged: dict[str, Tensor] = {}
    total = remaining = 0.0
    with seeded(seed):  # DARE draws from the global generator
        for name_b, name_a in _modules(updates[0]):
            dense = [(update[name_b] @ update[name_a]).float() for update in updates]
            # TIES has a mean of its own, over the updates that agree in sign
            weight = 1.0 if how == "ties" else 1 / len(updates)
            weights = torch.full((len(dense),), weight, device=dense[0].device)
            combined = (ties if how == "ties" else dare_linear)(dense, weights, density)
            full_rank = sum(update[name_a].shape[0] for update in updates)
            size = min(rank or full_rank, *combined.shape)
            u, values, v = torch.linalg.svd(combined, full_matrices=False)
            root = values[:size].sqrt()
            merged[name_b] = (u[:, :size] * root).to(updates[0][name_b])
            merged[name_a] = (root[:, None] * v[:size]).to(updates[0][name_a])
            total += float((values**2).sum())
            remaining += float((values[:size] ** 2).sum())
    return merged, remaining / total if total else 1.0
