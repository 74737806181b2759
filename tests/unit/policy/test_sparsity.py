"""Measures of sparsity: vectors by hand, and no scale."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastslow.policy.signals import FREE, PRIMARY, SIGNALS, SPARSITY
from fastslow.policy.sparsity import MEASURES, sparsity, top_energy

ONE, EQUAL, TWO, FOUR = (1.0, 0, 0, 0), (1.0, 1, 1, 1), (3.0, 4, 0, 0), (4.0, -3, 2, 1)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("hoyer", (1, 0, 0.6, 0.174258)),
        ("energy_rank", (-1, -4, -1.922100, -2.940198)),
        ("l1_rank", (-1, -4, -1.979626, -3.596115)),
        ("l0", (-0.25, 0, -0.25, -0.25)),
        ("gini", (0.75, 0, 0.535714, 0.25)),
        ("top5_energy", (1, 0.25, 0.64, 16 / 30)),  # at least one entry counts
    ],
)
def test_vectors_by_hand(name: str, values: tuple[float, ...]) -> None:
    for h, value in zip((ONE, EQUAL, TWO, FOUR), values, strict=True):
        assert sparsity(name, torch.tensor(h)) == pytest.approx(value, abs=1e-6)


def test_a_share_of_the_entries_is_rounded_down() -> None:
    h = torch.arange(1.0, 41)  # 5 % of 40 are two: 39 and 40
    assert top_energy(0.05)(h) == pytest.approx((39**2 + 40**2) / 22140)
    assert top_energy(0.0749)(h) == top_energy(0.05)(h) < top_energy(0.10)(h)


@given(
    st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=2, max_size=60),
    st.floats(1e-3, 1e3),
)
def test_no_measure_knows_a_scale(entries: list[float], scale: float) -> None:
    h = torch.tensor(entries, dtype=torch.float64)
    if float(h.abs().max()) < 1e-6:
        return
    for name, measure in MEASURES.items():
        if name != "l0":  # entries may lie on its threshold, where rounding decides
            assert measure(h) == pytest.approx(measure(scale * h), rel=1e-6, abs=1e-6), name


def test_entries_too_small_for_a_share_count_as_zeros() -> None:
    h = torch.tensor([85.0, 1e-160], dtype=torch.float64)
    assert sparsity("energy_rank", h) == pytest.approx(-1)
    assert sparsity("l1_rank", torch.tensor([1e200, 1e-200], dtype=torch.float64)) == pytest.approx(
        -1
    )


def test_a_vector_of_zeros_has_no_sparsity() -> None:
    assert {sparsity(name, torch.zeros(4)) for name in MEASURES} == {None}


def test_every_name_is_a_signal() -> None:
    assert {*SPARSITY, *FREE} < set(SIGNALS)
    assert PRIMARY in SPARSITY
    assert not {*FREE} & {*SPARSITY}
