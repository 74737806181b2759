"""How many new texts a budget pays for, against figures worked by hand."""

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastslow.channels.fast.settings import (
    FEWEST_PROPOSALS,
    DemosKeys,
    GepaKeys,
    MiproKeys,
    SimbaKeys,
    first_number,
)

SIZES = {"anchor": 40, "pool": 32, "old": 4}
PLANS: dict[str, Callable[[int], int]] = {
    "demos": partial(DemosKeys().proposals, **SIZES),
    "gepa": partial(GepaKeys(minibatch=3).proposals, **SIZES),
    "simba": partial(SimbaKeys(batch=4, candidates=3).proposals, **SIZES),
    "mipro": partial(MiproKeys(candidates=3).proposals, **SIZES),
}


def fewest_rollouts(kind: str) -> int:
    return first_number(lambda rollouts: PLANS[kind](rollouts) >= FEWEST_PROPOSALS)


@pytest.mark.parametrize(
    ("kind", "fewest"),
    [
        ("demos", 40 + 40),
        ("gepa", 3 * 2 * 3 + 2 * (2 * 3 + 40)),
        ("simba", 2 * 4 * (3 + 4) + 3 * 8 + 2 * 40),
        ("mipro", 40 + 32 + 2 * 40),
    ],
)
def test_two_new_texts_cost_what_was_worked_out_by_hand(kind: str, fewest: int) -> None:
    assert PLANS[kind](fewest) == 2
    assert PLANS[kind](fewest - 1) == 1
    assert fewest_rollouts(kind) == fewest


def test_bootstrapped_texts_take_their_turn_where_the_pool_fits() -> None:
    assert PLANS["demos"](40 + 72 + 40) == 3
    assert PLANS["demos"](40 + 71) == 2
    by_pass_rate = DemosKeys(demonstration_order="easy_first")
    assert by_pass_rate.proposals(32 + 40 + 71, **SIZES) == 2


@given(st.sampled_from(sorted(PLANS)), st.integers(-100, 2000))
def test_a_budget_that_is_enough_stays_enough(kind: str, rollouts: int) -> None:
    made = PLANS[kind](rollouts)
    assert made >= 0
    assert (made >= 2) == (rollouts >= fewest_rollouts(kind))
