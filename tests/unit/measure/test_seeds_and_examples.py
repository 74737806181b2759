"""Intervals over seeds and examples at once, against numbers worked out by hand."""

import math
from statistics import stdev

import pytest
from scipy.stats import nct, t, ttest_1samp

from fastslow.measure.stats.over_seeds import (
    average,
    difference,
    over_seeds_alone,
    over_seeds_and_examples,
)
from fastslow.measure.stats.power import power


def quantile(p: float, df: float) -> float:
    return float(t.ppf(p, df))


def test_with_one_seed_the_interval_is_over_examples_alone() -> None:
    values = [0.0, 1.0, 1.0, 1.0]
    estimate = over_seeds_and_examples({7: {"task": {str(i): v for i, v in enumerate(values)}}})
    se = stdev(values) / 2
    assert estimate.covers == "examples"
    assert estimate.sd is None
    assert estimate.low == pytest.approx(0.75 - quantile(0.975, 3) * se)
    assert estimate.per_seed == {7: 0.75}
    assert estimate.p_value == pytest.approx(ttest_1samp(values, 0).pvalue)


def test_both_sources_of_spread_add_up() -> None:
    by_seed = {
        0: {"task": {"a": 0.0, "b": 1.0, "c": 0.0, "d": 1.0}},
        1: {"task": {"a": 1.0, "b": 1.0, "c": 0.0, "d": 1.0}},
    }
    estimate = over_seeds_and_examples(by_seed)
    seeds = stdev([0.5, 0.75]) ** 2 / 2
    examples = stdev([0.5, 1.0, 0.0, 1.0]) ** 2 / 4
    df = (seeds + examples) ** 2 / (seeds**2 / 1 + examples**2 / 3)
    half = quantile(0.975, df) * math.sqrt(seeds + examples)
    assert (estimate.mean, estimate.covers) == (0.625, "seeds and examples")
    assert estimate.high == pytest.approx(0.625 + half)
    assert estimate.detectable is not None
    shift = estimate.detectable / math.sqrt(seeds + examples)
    assert nct.sf(quantile(0.975, df), df, shift) == pytest.approx(0.8)


def test_tasks_count_alike_whatever_their_size() -> None:
    big = {f"b{i}": 1.0 for i in range(30)}
    estimate = over_seeds_and_examples({0: {"small": {"a": 0.0, "b": 0.0}, "big": big}})
    assert estimate.mean == 0.5
    assert (estimate.low, estimate.covers) == (None, "one seed has no spread")


def test_seeds_that_agree_leave_the_spread_of_the_examples() -> None:
    same = {"task": {"a": 0.0, "b": 1.0}}
    estimate = over_seeds_and_examples({0: same, 1: same, 2: same})
    assert estimate.sd == 0
    assert estimate.low is not None
    assert estimate.test is not None
    assert (estimate.test.p_value, estimate.test.lowest_possible) == (0.25, 0.25)


def test_two_seeds_find_with_80_percent_power_what_is_16_standard_errors_away() -> None:
    estimate = over_seeds_alone({0: 0.0, 1: 2.0})  # a standard error of 1
    assert estimate.detectable == pytest.approx(16.334, abs=1e-3)
    assert power(estimate.sources, 16.334) == pytest.approx(0.8, abs=0.03)


def test_equal_figures_of_seeds_have_no_interval() -> None:
    estimate = over_seeds_alone({0: 0.2, 1: 0.2})
    assert (estimate.low, estimate.detectable, estimate.p_value) == (None, None, None)
    assert estimate.covers == "every seed gave the same"


def test_differences_and_means_keep_to_what_is_shared() -> None:
    before = {"x": {"a": 0.0, "b": 1.0}, "y": {"a": 1.0}}
    after = {"x": {"b": 0.0, "c": 1.0}, "z": {"a": 1.0}}
    assert difference(after, before) == {"x": {"b": -1.0}}
    assert average([before, {"x": {"b": 0.0}, "y": {"a": 0.0}}]) == {
        "x": {"b": 0.5},
        "y": {"a": 0.5},
    }


def test_the_mean_of_several_is_the_mean_of_their_means_whatever_tasks_each_has() -> None:
    first = {"x": {"a": 0.0, "b": 1.0}, "y": {"a": 1.0, "b": 1.0}}  # mean .75
    second = {"y": {"a": 0.0, "b": 0.0}, "z": {"a": 0.0, "b": 1.0}}  # mean .25
    mean_of_both = average([first, second])
    assert set(mean_of_both) == {"x", "y", "z"}
    assert over_seeds_and_examples({0: mean_of_both}).mean == pytest.approx((0.75 + 0.25) / 2)
