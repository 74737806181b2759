"""How many new texts a budget pays for, against figures worked by hand."""

from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastslow.channels.fast import budgets

PLANS: dict[str, Callable[[int], int]] = {
    "demos": partial(budgets.demos_proposals, anchor=40, pool=32, measures_pool=False),
    "gepa": partial(budgets.gepa_proposals, anchor=40, minibatch=3, old=4),
    "simba": partial(budgets.simba_proposals, anchor=40, pool=32, batch=4, candidates=3),
    "mipro": partial(budgets.mipro_trials, anchor=40, pool=32, candidates=3),
}


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
    assert budgets.fewest_rollouts(PLANS[kind]) == fewest


def test_bootstrapped_texts_take_their_turn_where_the_pool_fits() -> None:
    assert budgets.demos_proposals(40 + 72 + 40, 40, 32, measures_pool=False) == 3
    assert budgets.demos_proposals(40 + 71, 40, 32, measures_pool=False) == 2
    assert budgets.demos_proposals(32 + 40 + 71, 40, 32, measures_pool=True) == 2


@given(st.sampled_from(sorted(PLANS)), st.integers(-100, 2000))
def test_a_budget_that_is_enough_stays_enough(kind: str, rollouts: int) -> None:
    made = PLANS[kind](rollouts)
    assert made >= 0
    assert (made >= 2) == (rollouts >= budgets.fewest_rollouts(PLANS[kind]))
