"""The routing curve: vectors by hand, ties, tokens, and which pairs of arms are eligible."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest

from fastslow.measure.scores.routing_curve import Arm, RoutingCurve, routing_curve


def curve_of(
    cheap: Sequence[float], strong: Sequence[float], **signals: Sequence[float | None]
) -> RoutingCurve:
    arms = Arm("seed prompt", tuple(cheap), 20.0), Arm("deployed prompt", tuple(strong), 100.0)
    return routing_curve("t", *arms, signals)


def gain(curve: RoutingCurve, signal: str) -> float:
    metric = curve.gains[signal].metric
    assert metric.value is not None, metric.reason
    return metric.value


def test_the_best_order_is_one_chance_is_nothing_and_the_reverse_is_minus() -> None:
    curve = curve_of(
        (1, 0, 0, 1),
        (1, 1, 0, 0),
        good=(0.1, 0.9, 0.8, 0.2),
        reversed=(0.9, 0.1, 0.2, 0.8),
        constant=(3, 3, 3, 3),
        oracle=(0, 1, 0, -1),
    )
    gains = [gain(curve, name) for name in ("good", "reversed", "constant", "oracle")]
    assert gains == pytest.approx([2 / 3, -2 / 3, 0, 1])
    assert curve.accuracy["good"] == pytest.approx((0.5, 0.75, 0.75, 0.5, 0.5))
    assert curve.accuracy["best order"] == pytest.approx((0.5, 0.75, 0.75, 0.75, 0.5))
    assert curve.tokens == (20, 45, 70, 95, 120)  # what is sent on was read under the cheap arm


def test_ties_are_the_mean_over_every_order_of_them() -> None:
    cheap, strong, signal = (0, 1, 0, 0.5, 1), (1, 0, 0.25, 1, 1), (2, 2, 1, 2, 0)
    tied = curve_of(cheap, strong, signal=signal)
    broken = [
        curve_of(cheap, strong, signal=[2 + order[0], 2 + order[1], 1, 2 + order[2], 0])
        for order in permutations((0.1, 0.2, 0.3))
    ]
    assert gain(tied, "signal") == pytest.approx(np.mean([gain(c, "signal") for c in broken]))
    means = np.mean([c.accuracy["signal"] for c in broken], axis=0)
    assert tied.accuracy["signal"] == pytest.approx(means)


def test_arms_that_differ_nowhere_leave_nothing_to_gain() -> None:
    for strong in ((1, 0.5, 1), (0.5, 0, 0.5)):
        metric = curve_of((1, 0.5, 1), strong, s=(1, 2, 3)).gains["s"].metric
        assert metric.value is None
        assert metric.reason == "the arms differ by the same on every problem: no order is better"


def test_a_signal_that_is_not_defined_everywhere_has_a_reason() -> None:
    curve = curve_of((1, 0, 0), (1, 1, 0), s=(1, None, 2), t=(0, 1, 0))
    assert curve.gains["s"].metric.reason == "it is not defined on every problem"
    assert gain(curve, "t") == 1
    assert "s" not in curve.accuracy


def test_a_pair_that_is_worse_on_many_is_not_eligible() -> None:
    cheap = [0.0] * 40 + [1.0] * 60
    better = [1.0] * 20 + [0.0] * 20 + [1.0] * 60
    assert curve_of(cheap, better, s=range(100)).eligible
    gives_and_takes = [1.0] * 40 + [0.0] * 20 + [1.0] * 40  # the pilot's other label
    other = curve_of(cheap, gives_and_takes, s=range(100))
    assert (other.eligible, other.worse_frac) == (False, 0.2)
    assert not curve_of(cheap, [1.0] * 4 + [0.0] * 36 + [1.0] * 60, s=range(100)).eligible


def test_intervals_are_of_draws_and_repeat_themselves() -> None:
    generator = np.random.default_rng(0)
    cheap = generator.integers(0, 2, 80).astype(float)
    strong = np.maximum(cheap, generator.integers(0, 2, 80))
    signals = {"tells": -cheap + generator.normal(size=80) / 4, "noise": generator.normal(size=80)}
    one, two = (
        curve_of(cheap.tolist(), strong.tolist(), **{k: v.tolist() for k, v in signals.items()})
        for _ in range(2)
    )
    assert one == two
    tells, noise = one.gains["tells"].interval, one.gains["noise"].interval
    assert tells is not None
    assert noise is not None
    assert tells.low > 0
    assert noise.low < 0 < noise.high
