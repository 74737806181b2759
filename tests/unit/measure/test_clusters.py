"""Intervals over examples that share a source, against numbers worked out by hand."""

import math
import random
from collections import Counter
from dataclasses import replace
from statistics import fmean, stdev

import pytest

from fastslow.measure.scores.curves import LearningCurve, fit_sigmoid
from fastslow.measure.stats.bootstrap import draw_again
from fastslow.measure.stats.intervals import (
    cluster_labels,
    clustered_se,
    difference_of,
    paired_difference,
    score_interval,
    wilson,
)
from fastslow.measure.stats.over_seeds import over_seeds_and_examples

SCORES = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
PAGES = ["a", "a", "a", "b", "b", "b", "c", "d"]


def by_hand(values: list[float], clusters: list[str]) -> float:
    """Liang and Zeger's standard error of a mean, with the factor C / (C - 1)."""
    mean, names = fmean(values), sorted(set(clusters))
    sums = [
        sum(v - mean for v, c in zip(values, clusters, strict=True) if c == name) for name in names
    ]
    return math.sqrt(len(names) / (len(names) - 1) * sum(s * s for s in sums)) / len(values)


def test_a_cluster_of_one_changes_nothing() -> None:
    generator = random.Random(0)
    for number in range(100):
        n = generator.randint(2, 12)
        before, after = ([generator.random() for _ in range(n)] for _ in range(2))
        if number % 2:
            before, after = ([float(round(s)) for s in side] for side in (before, after))
        alone = [str(i) for i in range(n)]
        assert score_interval(before, alone) == score_interval(before)
        assert paired_difference(before, after, alone) == paired_difference(before, after)
        # the standard error of independent examples
        se = paired_difference(before, after).se
        steps = [b - a for a, b in zip(before, after, strict=True)]
        if se is not None:
            assert se == pytest.approx(stdev(steps) / math.sqrt(n))


def test_members_that_agree_widen_the_interval_of_a_score() -> None:
    narrow, wide = score_interval(SCORES), score_interval(SCORES, PAGES)
    assert narrow is not None
    assert wide is not None
    # as many independent examples as have the clustered standard error
    n = 0.5 * 0.5 / by_hand(SCORES, PAGES) ** 2 * 8 / 7
    assert 2 < n < 4  # of four pages
    assert wide == wilson(0.5 * n, n)
    assert wide.low < narrow.low
    assert wide.high > narrow.high


def test_clusters_that_are_all_right_are_as_many_examples() -> None:
    assert score_interval([1.0] * 6, ["a", "a", "a", "b", "b", "b"]) == wilson(2, 2)


def test_copies_of_every_example_are_worth_the_examples() -> None:
    graded = [0.2, 0.9, 0.4, 0.7]
    four_times = [score for score in graded for _ in range(4)]
    pages = [name for name in "abcd" for _ in range(4)]
    once, copied = difference_of(graded), difference_of(four_times, pages)
    assert copied.se == pytest.approx(once.se)
    assert difference_of(four_times).se == pytest.approx(once.se, rel=0.6)
    assert copied.se == pytest.approx(by_hand(four_times, pages))
    assert (copied.n, once.n) == (16, 4)


def test_a_paired_test_of_independent_examples_is_not_made_on_clusters() -> None:
    change = paired_difference([0.0] * 8, SCORES, PAGES)
    assert paired_difference([0.0] * 8, SCORES).p_value == 0.125
    assert change.p_value is None
    assert change.se == pytest.approx(by_hand(SCORES, PAGES))
    one = paired_difference([0.0, 0.0], [1.0, 0.0], ["a", "a"])
    assert (one.se, one.reason) == (None, "one cluster has no spread")


def test_an_example_called_as_a_cluster_is_not_in_it() -> None:
    labels = cluster_labels(["page", "x", "y"], {"x": "page", "y": "page"})
    assert labels[0] != labels[1] == labels[2]


def test_seeds_and_examples_count_clusters_too() -> None:
    values = {f"e{i}": score for i, score in enumerate(SCORES)}
    pages = {"task": dict(zip(values, PAGES, strict=True))}
    estimate = over_seeds_and_examples({0: {"task": values}}, pages)
    square, df = estimate.sources["examples"]
    assert square == pytest.approx(by_hand(SCORES, PAGES) ** 2)
    assert df == 4 - 1
    assert clustered_se(SCORES, PAGES) == pytest.approx(math.sqrt(square))


def test_a_draw_takes_whole_clusters_and_without_any_is_one_of_examples() -> None:
    draw = draw_again(random.Random(1), 8, PAGES)
    counts = Counter(draw)
    assert len({counts[i] for i in (0, 1, 2)}) == len({counts[i] for i in (3, 4, 5)}) == 1
    assert sum(counts[i] for i in (0, 3, 6, 7)) == 4
    alone = draw_again(random.Random(1), 8, tuple(range(8)))
    assert alone == draw_again(random.Random(1), 8)
    assert alone == random.Random(1).choices(range(8), k=8)


def test_a_sigmoid_over_clusters_is_less_certain() -> None:
    generator = random.Random(0)
    rises = [(0.1, 0.2, 0.5, 0.7, 0.8), (0.0, 0.1, 0.2, 0.3, 0.4), (0.2, 0.5, 0.9, 0.9, 1.0)]
    columns = [
        tuple(min(1.0, s + generator.random() / 20) for s in r) for r in rises for _ in "abcd"
    ]
    curve = LearningCurve("steps", (0, 1, 2, 4, 8), tuple(zip(*columns, strict=True)))
    sources = tuple(name for name in "xyz" for _ in range(4))
    widths = []
    for clusters in (None, sources):
        fits = fit_sigmoid(replace(curve, clusters=clusters), random.Random(0), 60)
        interval = fits["sigmoid_asymptote"].interval
        assert interval is not None
        widths.append(interval.high - interval.low)
    assert widths[1] > 1.3 * widths[0]
