"""Geometry of hand-made updates; no model, a few small matrices."""

import math
from collections.abc import Iterator, Mapping

import pytest
import torch
from scipy import stats
from torch import Tensor

from fastslow.core.errors import EvaluationError
from fastslow.measure.model.geometry import (
    TOP_SHARES,
    Geometry,
    chance_jaccard,
    gaussian_energy_share,
    measure_geometry,
    top_overlaps,
)
from fastslow.measure.model.magnitudes import Deltas
from fastslow.policy.adapter.deltas import WeightDelta


def update(*changes: Tensor, base: float = 0.1) -> Deltas:
    """Full changes of some matrices, over bases that have one value."""

    def deltas() -> Iterator[WeightDelta]:
        for index, change in enumerate(changes):
            first, second = change, torch.eye(change.shape[1])
            yield WeightDelta(f"m{index}", torch.full(change.shape, base), first, second)

    return deltas


def noise(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def values(deltas: Deltas) -> dict[str, float | None]:
    return {name: m.value for name, m in measure_geometry(deltas).metrics.items()}


def test_an_update_of_nothing_is_all_sparse_and_has_no_shares_or_ranks() -> None:
    metrics = measure_geometry(update(torch.zeros(4, 6), torch.zeros(3, 3))).metrics
    assert metrics["sparsity_0"].value == metrics["unchanged_bf16_frac"].value == 1
    assert metrics["relative_norm"].value == 0
    assert metrics["weight_mean_abs"].value == pytest.approx(0.1)
    for name in ("energy_top1_frac", "stable_rank", "effective_rank"):
        assert metrics[name].reason == "the update is zero everywhere"


def test_one_changed_weight_is_one_weight_of_all() -> None:
    change = torch.zeros(20, 20)
    change[3, 4] = 0.5
    m = values(update(change, torch.zeros(10, 10)))
    assert m["sparsity_0"] == pytest.approx(1 - 1 / 500)
    assert m["energy_top1_frac"] == 1
    assert m["stable_rank"] == pytest.approx(1)
    assert m["effective_rank"] == pytest.approx(1)
    assert m["relative_norm"] == pytest.approx(0.5 / math.sqrt(500 * 0.01))


def test_a_small_float32_change_is_rounding_in_bfloat16_and_real_in_float32() -> None:
    m = values(update(torch.full((8, 8), 1e-6)))
    assert m["unchanged_bf16_frac"] == 1
    assert m["sparsity_0"] == 0
    assert m["sparsity_1e_5"] == 1
    large = values(update(torch.full((8, 8), 1e-2)))
    assert large["unchanged_bf16_frac"] == large["sparsity_1e_4"] == 0


def test_energy_shares_are_exact_over_all_matrices_together() -> None:
    changes = [noise(40, 30), noise(25, 64, seed=1) * 3]
    m = values(update(*changes))
    ordered = torch.cat([c.flatten() for c in changes]).double().square().sort(descending=True)
    for share in TOP_SHARES:
        top = math.floor(share * len(ordered.values))
        expected = float(ordered.values[:top].sum() / ordered.values.sum())
        assert m[f"energy_top{round(100 * share)}_frac"] == pytest.approx(expected, abs=1e-7)


def test_ties_do_not_change_the_energy_of_the_top_weights() -> None:
    m = values(update(torch.ones(30, 40)))
    assert m["energy_top1_frac"] == pytest.approx(0.01, abs=1e-7)
    assert m["energy_top10_frac"] == pytest.approx(0.10, abs=1e-7)


def test_the_gaussian_null_is_the_half_normal_formula_and_what_noise_gives() -> None:
    assert gaussian_energy_share(0.01) == pytest.approx(0.0845, abs=1e-4)
    assert gaussian_energy_share(0.10) == pytest.approx(0.4393, abs=1e-4)
    for share in TOP_SHARES:
        t = stats.halfnorm.isf(share)
        assert gaussian_energy_share(share) == pytest.approx(stats.chi2(3).sf(t * t), abs=1e-9)
    m = values(update(noise(400, 500)))
    assert m["energy_top10_frac"] == pytest.approx(gaussian_energy_share(0.10), abs=0.01)


def test_low_rank_factors_have_the_ranks_of_their_product() -> None:
    first, second = noise(30, 3), noise(3, 20, seed=1)

    def factors() -> Iterator[WeightDelta]:
        yield WeightDelta("m0", torch.ones(30, 20), first, second)

    assert values(factors) == pytest.approx(values(update(first @ second, base=1.0)), rel=1e-4)
    [delta] = factors()
    direct = torch.linalg.svdvals((first @ second).double())[:3]
    torch.testing.assert_close(
        torch.tensor(delta.singular_values(), dtype=torch.float64), direct, rtol=1e-5, atol=0
    )


def test_overlap_is_one_with_itself_and_near_chance_with_something_else() -> None:
    stages = {
        "a": update(noise(100, 200)),
        "same": update(2 * noise(100, 200)),
        "other": update(noise(100, 200, seed=7)),
        "idle": update(torch.zeros(100, 200)),
    }
    geometries = {name: measure_geometry(deltas) for name, deltas in stages.items()}
    overlaps = {
        (o.first, o.second): o for o in top_overlaps(stages, thresholds(geometries, 0.10), 0.10)
    }
    assert len(overlaps) == 6
    assert overlaps["a", "same"].jaccard.value == 1
    stranger = overlaps["a", "other"]
    assert stranger.chance == pytest.approx(0.1 / 1.9, rel=1e-3)
    assert stranger.jaccard.value == pytest.approx(stranger.chance, abs=0.015)
    assert overlaps["a", "idle"].jaccard.reason == "idle changed fewer than 10% of the weights"
    assert chance_jaccard(0.01, 0.01) == pytest.approx(0.01 / 1.99)


def test_stages_that_adapt_different_matrices_have_no_overlap() -> None:
    def renamed() -> Iterator[WeightDelta]:
        for delta in update(noise(4, 4))():
            yield WeightDelta("elsewhere", delta.base, delta.left_factor, delta.right_factor)

    stages = {"a": update(noise(4, 4)), "b": renamed}
    geometries = {name: measure_geometry(deltas) for name, deltas in stages.items()}
    with pytest.raises(EvaluationError, match="got m0, elsewhere at one place"):
        top_overlaps(stages, thresholds(geometries, 0.01))


def thresholds(geometries: Mapping[str, Geometry], share: float) -> dict[str, float]:
    return {name: geometry.thresholds[share] for name, geometry in geometries.items()}
