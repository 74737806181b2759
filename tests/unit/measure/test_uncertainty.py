import pytest

from fastslow.measure.stats import intervals as un


def test_no_change_gives_no_interval_but_still_a_smallest_detectable_drop() -> None:
    d = un.paired_difference([1.0, 0.0] * 10, [1.0, 0.0] * 10)
    assert (d.mean, d.se, d.low, d.high) == (0.0, None, None, None)
    assert d.reason == "no example changed"
    assert d.smallest_detectable == pytest.approx(0.1611, abs=1e-4)
    assert not d.is_drop
    assert not d.is_rise


def test_a_drop_is_claimed_only_when_the_whole_interval_lies_below_zero() -> None:
    small = un.paired_difference([1.0] * 20, [0.0] + [1.0] * 19)
    large = un.paired_difference([1.0] * 20, [0.0] * 8 + [1.0] * 12)
    assert not small.is_drop
    assert large.is_drop
    assert un.paired_difference([0.0] * 20, [1.0] * 8 + [0.0] * 12).is_rise


def test_a_change_of_every_example_is_beyond_chance_although_it_has_no_spread() -> None:
    d = un.paired_difference([0.0] * 8, [1.0] * 8)
    assert (d.low, d.high, d.p_value) == (None, None, 2 / 2**8)
    assert d.is_rise


def test_graded_scores_that_all_changed_by_the_same_are_judged_by_their_signs() -> None:
    d = un.paired_difference([0.5] * 8, [1.0] * 8)
    assert (d.low, d.p_value) == (None, 2 / 2**8)
    assert d.is_rise
    assert not un.paired_difference([0.5] * 5, [1.0] * 5).is_rise
    assert not un.paired_difference([0.5] * 8, [1.0] * 8, [0, 0, 1, 1, 2, 2, 3, 3]).is_rise
    assert un.paired_difference([0.5] * 8, [0.5] * 8).p_value is None


def test_few_examples_prove_nothing_however_large_the_change() -> None:
    d = un.paired_difference([0.0] * 5, [1.0, 1.0, 1.0, 1.0, 0.0])
    assert d.low is not None
    assert d.low > 0
    assert d.p_value == 0.125
    assert not d.is_rise


def test_graded_scores_are_judged_by_their_interval() -> None:
    d = un.paired_difference([0.5] * 8, [0.75, 0.5] * 4)
    assert d.p_value is None
    assert d.is_rise


def test_one_example_has_no_interval_and_unpaired_lists_are_refused() -> None:
    assert un.paired_difference([0.5], [1.0]).reason == "one example has no spread"
    with pytest.raises(ValueError, match="no examples"):
        un.paired_difference([], [])
    with pytest.raises(ValueError, match="shorter"):
        un.paired_difference([0.0, 1.0], [1.0])


def test_scores_of_zero_and_one_get_wilson_and_graded_ones_a_normal_interval() -> None:
    exact, graded = un.score_interval([1.0, 0.0, 1.0]), un.score_interval([0.5, 0.0, 1.0])
    assert exact == un.wilson(2, 3)
    assert graded is not None
    assert graded.method == "normal"
    assert 0 <= graded.low <= 0.5 <= graded.high <= 1


def test_no_interval_is_given_where_none_can_be() -> None:
    assert un.score_interval([]) is None
    assert un.score_interval([0.5, 0.5]) is None
    assert un.score_interval([0.5]) is None


def test_the_interval_of_a_mean_over_tasks_takes_the_tasks_as_fixed() -> None:
    change = un.paired_difference([1.0] * 15 + [0.0] * 5, [0.0] * 15 + [1.0] * 5)
    same = un.paired_difference([1.0] * 20, [1.0] * 20)
    alone, both = un.mean_difference([change]), un.mean_difference([change, same])
    assert alone is not None
    assert both is not None
    assert change.low is not None
    assert alone.low == pytest.approx(change.low)
    assert both.low == pytest.approx(change.low / 2)
    assert un.mean_difference([same]) is None
    assert un.mean_difference([]) is None


def test_mcnemar_is_one_without_change_and_symmetric() -> None:
    assert un.mcnemar(0, 0) == 1
    assert un.mcnemar(5, 15) == un.mcnemar(15, 5)
    assert un.mcnemar(7, 7) == 1


def test_wilson_refuses_counts_that_are_not_counts() -> None:
    with pytest.raises(ValueError, match="got 3 of 2"):
        un.wilson(3, 2)
    with pytest.raises(ValueError, match="got 0 of 0"):
        un.wilson(0, 0)
