"""Merging of low-rank updates, against dense matrices and hand values."""

import math

import pytest
import torch
from peft.utils.merge_utils import ties
from torch import Tensor

from fastslow.policy.adapter.merging import (
    alike,
    concatenation,
    inner_products,
    slerp,
    slerp_pair,
    sparse_merge,
)

LEFT, RIGHT = "layer.lora_B.default.weight", "layer.lora_A.default.weight"


def update(seed: int, rank: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        LEFT: torch.randn(7, rank, generator=generator),
        RIGHT: torch.randn(rank, 5, generator=generator),
    }


def dense(update: dict[str, Tensor]) -> Tensor:
    return update[LEFT] @ update[RIGHT]


def outer(left: list[float], right: list[float]) -> dict[str, Tensor]:
    """An update of rank one."""
    factors = torch.tensor(left).float(), torch.tensor(right).float()
    return {LEFT: factors[0][:, None], RIGHT: factors[1][None]}


def test_concatenation_is_the_sum() -> None:
    updates = [update(0), update(1, rank=3), update(2)]
    merged = concatenation(updates, {LEFT: [0.5, -1.0, 2.0]})
    assert merged[RIGHT].shape == (7, 5)
    expected = 0.5 * dense(updates[0]) - dense(updates[1]) + 2 * dense(updates[2])
    torch.testing.assert_close(dense(merged), expected)


def test_equal_adapters_merged_linearly_are_that_adapter() -> None:
    one = update(0)
    torch.testing.assert_close(dense(concatenation([one, one], alike([one, one], 0.5))), dense(one))


def test_inner_products_are_those_of_the_dense_updates() -> None:
    updates = [update(0), update(1, rank=3)]
    products = inner_products(updates, LEFT)
    for i, one in enumerate(updates):
        for j, two in enumerate(updates):
            assert products[i][j] == pytest.approx(float((dense(one) * dense(two)).sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("angle", "coefficient"), [(90.0, math.sqrt(0.5)), (60.0, 0.5773503), (1e-9, 0.5)]
)
def test_slerp_of_unit_updates_at_half_way(angle: float, coefficient: float) -> None:
    product = math.cos(math.radians(angle))
    assert slerp_pair(1.0, product, 1.0, 0.5) == pytest.approx((coefficient, coefficient))


def test_slerp_of_three_keeps_the_length_of_orthogonal_unit_updates() -> None:
    updates = [outer([1, 0, 0], [1, 0]), outer([0, 1, 0], [1, 0]), outer([0, 0, 1], [0, 1])]
    coefficients = slerp(updates)
    merged = dense(concatenation(updates, coefficients))
    assert float(merged.norm()) == pytest.approx(1.0)
    first, second, third = coefficients[LEFT]
    # the first two share two thirds of the way alike, the third has one third of the right angle
    assert first == pytest.approx(second)
    assert third == pytest.approx(math.sin(math.pi / 6))


def test_slerp_of_updates_that_do_nothing_is_linear() -> None:
    assert slerp_pair(0.0, 0.0, 1.0, 0.25) == (0.75, 0.25)


def test_ties_of_the_hand_example() -> None:
    one, two = torch.tensor([3.0, -1.0, 0.2, 2.0]), torch.tensor([1.0, 2.0, -0.1, -4.0])
    assert ties([one, two], torch.ones(2), 0.5).tolist() == [3.0, 2.0, 0.0, -4.0]
    updates = [outer([1.0], one.tolist()), outer([1.0], two.tolist())]
    merged, energy = sparse_merge(updates, "ties", 0.5, None, seed=0)
    torch.testing.assert_close(dense(merged), torch.tensor([[3.0, 2.0, 0.0, -4.0]]))
    assert energy == pytest.approx(1.0)


def test_a_rank_too_small_says_what_it_loses() -> None:
    updates = [update(0, rank=3), update(1, rank=3)]
    whole, full_energy = sparse_merge(updates, "dare", 0.5, None, seed=0)
    assert full_energy == pytest.approx(1.0)
    cut, energy = sparse_merge(updates, "dare", 0.5, 2, seed=0)
    assert cut[RIGHT].shape == (2, 5)
    expected = float(dense(cut).norm() ** 2 / dense(whole).norm() ** 2)
    assert energy == pytest.approx(expected, rel=1e-4)
    assert energy < 0.99


def test_dare_draws_by_its_seed_and_leaves_the_global_generator() -> None:
    updates = [update(0), update(1)]
    before = torch.random.get_rng_state()
    first, again, other = (
        dense(sparse_merge(updates, "dare", 0.5, None, seed)[0]) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
