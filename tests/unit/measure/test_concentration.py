"""Concentration of hand-made updates next to random products; no model."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from fastslow.measure.model.concentration import energy_shares, null_shares
from fastslow.measure.model.geometry import gaussian_energy_share, measure_geometry
from fastslow.measure.model.magnitudes import Deltas, magnitudes_of, top_entries
from fastslow.policy.adapter.deltas import WeightDelta

SHAPES = ((60, 40), (40, 80), (90, 30))


def product(rank: int, seed: int, scales: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Deltas:
    """Random products of Gaussian factors, each matrix at its scale."""

    def deltas() -> Iterator[WeightDelta]:
        generator = torch.Generator().manual_seed(seed)
        for index, ((rows, columns), scale) in enumerate(zip(SHAPES, scales, strict=True)):
            left = scale * torch.randn(rows, rank, generator=generator)
            right = torch.randn(rank, columns, generator=generator)
            yield WeightDelta(f"m{index}", torch.zeros(rows, columns), left, right)

    return deltas


def whole(*changes: Tensor) -> Deltas:
    """Full changes of some matrices."""
    return lambda: (
        WeightDelta(f"m{i}", torch.zeros_like(change), change, torch.eye(change.shape[1]))
        for i, change in enumerate(changes)
    )


def test_shares_from_the_histogram_are_those_of_the_geometry() -> None:
    deltas = product(4, 0, (1.0, 3.0, 0.2))
    exact = measure_geometry(deltas).metrics
    shares = energy_shares(deltas)
    for share in (1, 5, 10):
        value = exact[f"energy_top{share}_frac"].value
        assert shares[f"top{share}"] == pytest.approx(value, rel=1e-2)
    # entries chosen over all matrices favour the one of large norm
    assert shares["top5"] > shares["top5_within"] + 0.05


def test_a_random_product_is_no_more_concentrated_than_its_null_and_more_than_numbers() -> None:
    deltas = product(2, 1, (1.0, 3.0, 0.2))
    shares, nulls = energy_shares(deltas), null_shares(deltas, 19, 7)
    for name in shares:
        values = [draw[name] for draw in nulls]
        assert min(values) <= shares[name] <= max(values)
    within = [draw["top5_within"] for draw in nulls]
    assert min(within) > gaussian_energy_share(0.05)
    assert len({draw["top5"] for draw in nulls}) == 19
    assert nulls == null_shares(deltas, 19, 7)


def test_a_change_of_few_entries_is_above_every_draw() -> None:
    change = 1e-3 * torch.randn(60, 40, generator=torch.Generator().manual_seed(0))
    change[3, :12] = 1.0
    deltas = whole(change, torch.zeros(20, 20))
    shares, nulls = energy_shares(deltas), null_shares(deltas, 5, 0)
    assert shares["top1"] == pytest.approx(1, abs=1e-3)
    assert shares["top5_within"] == pytest.approx(1, abs=1e-3)  # of the changed matrix alone
    assert max(draw["top1"] for draw in nulls) < 0.3
    assert energy_shares(whole(torch.zeros(4, 4))) == {}


def test_entries_that_tie_at_the_threshold_belong_to_the_top_at_a_rate() -> None:
    change = torch.full((20, 20), 0.5)
    change[0, :10] = 2.0
    top = top_entries(whole(change), magnitudes_of(change), (0.05, 0.01))
    assert [top[share].threshold for share in (0.05, 0.01)] == [0.5, 2.0]
    rates = [top[share].tie_rate for share in (0.05, 0.01)]
    assert rates == pytest.approx([10 / 390, 4 / 10])
    assert top[0.01].energy == pytest.approx(4 * 4.0)
