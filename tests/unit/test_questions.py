"""The rules behind the verdicts of docs/questions.md, on figures by hand."""

import pytest

from benchmarks.questions.rules import (
    bridge_answer,
    concentration_answer,
    fall_answer,
    form_answer,
    partial_answer,
    place_answer,
    routing_answer,
)


def each(figures: list) -> dict[str, list]:  # type: ignore[type-arg]
    """The same figures for three tasks."""
    return dict.fromkeys("abc", figures)


UP, DOWN, OPEN, TINY = [0.3, 0.1, 0.5], [-0.3, -0.5, -0.1], [0.1, -0.1, 0.3], [0.0, -0.02, 0.02]


@pytest.mark.parametrize(
    ("figures", "answer"),
    [
        ([[UP, UP], [UP, UP], [OPEN, UP]], "yes, in 2 of 3 tasks"),
        ([[UP, UP], [UP, OPEN], [OPEN, UP]], "undecided, above 0 in 1 of 3 tasks"),
        ([[TINY, DOWN], [DOWN, TINY], [TINY, TINY]], "no"),
        ([[TINY, DOWN], [DOWN, OPEN], [TINY, TINY]], "undecided, above 0 in 0 of 3 tasks"),
        ([[UP], [[0.3, None, None]], [UP]], "yes, in 2 of 3 tasks"),
    ],
)
def test_a_partial_correlation_must_hold_in_every_draw(figures: list, answer: str) -> None:  # type: ignore[type-arg]
    assert partial_answer(dict(zip("abc", figures, strict=True))) == answer


def test_routing_takes_both_differences_and_eligible_pairs() -> None:
    ups, downs = each([UP]), each([DOWN])
    assert routing_answer(ups, ups) == "yes, in 3 of 3 tasks"
    assert routing_answer(ups, {**ups, "a": [], "b": []}) == "undecided, yes in 1 of 3 tasks"
    assert routing_answer(downs, {**downs, "a": []}) == "no, in no task (eligible pairs in 2)"
    assert routing_answer(downs, {**downs, "a": [OPEN]}) == "undecided, yes in 0 of 3 tasks"


def test_a_form_is_followed_where_it_moves_all_problems_alike() -> None:
    moved, still = each([UP, DOWN]), each([UP, OPEN])
    same, other = each([TINY, OPEN]), each([UP, DOWN])
    assert form_answer(moved, same) == "yes, in 3 of 3 tasks"
    assert form_answer(still, same) == "undecided, yes in 0, no in 0 of 3 tasks"
    assert form_answer(moved, other) == "no, in 3 of 3 tasks"
    mixed = {**same, "a": [UP, OPEN], "b": [UP, UP]}
    assert form_answer(moved, mixed) == "undecided, yes in 1, no in 1 of 3 tasks"


def test_concentration_is_what_a_random_product_does_not_have() -> None:
    assert concentration_answer({"a": [0.05, 0.2], "b": [0.06], "c": [0.0]}).startswith("yes, in 2")
    assert concentration_answer({"a": [0.01], "b": [0.04], "c": [-0.1]}) == "no"
    mixed = concentration_answer({"a": [0.01, 0.06], "b": [0.04], "c": [0.06]})
    assert mixed == "undecided, yes in 1, no in 1 of 3"


def test_a_bridge_passes_its_interval_and_the_permutations() -> None:
    ups = each([UP])
    assert bridge_answer(ups, each([0.01])) == "yes, in 3 of 3 tasks"
    assert bridge_answer(ups, each([0.02])) == "undecided, yes in 0, no in 0 of 3"
    assert bridge_answer(each([TINY]), each([0.001])) == "no"


def test_the_place_matters_if_choosing_beats_shrinking() -> None:
    ups, opens = each([UP]), each([OPEN])
    assert place_answer(ups, ups) == "yes, in 3 of 3 tasks"
    assert place_answer(ups, opens) == "partly, above random entries in 3 of 3, both in 0"
    assert place_answer(opens, ups) == "no"
    assert place_answer({**opens, "a": [UP]}, ups) == "undecided, above random entries in 1"


def test_a_fall_is_a_difference_below_zero() -> None:
    assert [fall_answer(f) for f in (DOWN, UP, OPEN)] == ["yes", "no, it falls less", "undecided"]
