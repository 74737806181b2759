import random

import pytest

from fastslow.core.errors import EvaluationError
from fastslow.measure.scores.curves import LearningCurve, count_to_threshold, fit_sigmoid
from fastslow.measure.stats.bootstrap import percentile_interval


def planted(counts: tuple[int, ...], examples: int = 1, noise: float = 0.0) -> LearningCurve:
    """R0 = .1, A = .7, C_mid = 40, B = 3; examples scatter around it, with mean 0 at each point."""
    generator = random.Random(3)
    rows = []
    for count in counts:
        mean = 0.1 + 0.6 / (1 + (40 / count) ** 3) if count else 0.1
        rows.append(tuple(mean + generator.uniform(-noise, noise) for _ in range(examples)))
    return LearningCurve("steps", counts, tuple(rows))


def test_a_planted_sigmoid_is_recovered() -> None:
    curve = planted((0, 10, 20, 30, 40, 60, 80, 120))
    fitted = {name: e.metric.value for name, e in fit_sigmoid(curve, random.Random(0)).items()}
    assert fitted == pytest.approx(
        {
            "sigmoid_start": 0.1,
            "sigmoid_asymptote": 0.7,
            "sigmoid_midpoint": 40,
            "sigmoid_steepness": 3,
            "sigmoid_r2": 1,
        },
        rel=1e-3,
    )


def test_the_asymptote_has_an_interval_that_is_wider_the_earlier_the_curve_ends() -> None:
    long = planted((5, 10, 15, 20, 25, 30, 60, 90, 120), examples=12, noise=0.1)
    short = LearningCurve("steps", long.counts[:6], long.scores[:6])
    widths = []
    for curve in (long, short):
        asymptote = fit_sigmoid(curve, random.Random(0), resamples=40)["sigmoid_asymptote"]
        assert asymptote.interval is not None
        assert asymptote.interval.method == "bootstrap"
        widths.append(asymptote.interval.high - asymptote.interval.low)
    assert widths[0] < widths[1]
    again = fit_sigmoid(long, random.Random(0), resamples=40)
    assert again == fit_sigmoid(long, random.Random(0), resamples=40)


@pytest.mark.parametrize(
    ("curve", "reason"),
    [
        (planted((0, 10, 20, 30)), "four parameters need at least five points, the curve has 4"),
        (
            LearningCurve("steps", (1, 2, 3, 4, 5), ((0.5,),) * 5),
            "every point has the same score: there is no curve to fit",
        ),
    ],
)
def test_where_no_sigmoid_can_be_fitted_the_reason_is_given(
    curve: LearningCurve, reason: str
) -> None:
    for estimate in fit_sigmoid(curve, random.Random(0)).values():
        assert estimate.metric.value is None
        assert estimate.metric.reason == estimate.interval_reason == reason


def test_a_curve_of_means_alone_is_fitted_without_an_interval() -> None:
    fitted = fit_sigmoid(planted((5, 10, 20, 40, 80)), random.Random(0))["sigmoid_asymptote"]
    assert fitted.metric.value is not None
    assert fitted.interval is None
    assert fitted.interval_reason == "one example has no spread"


def test_the_threshold_counts_in_the_unit_of_the_curve_and_says_when_it_was_not_reached() -> None:
    curve = LearningCurve("rollouts", (0, 64, 128), ((0.0, 0.2), (0.5, 0.3), (0.4, 0.2)))
    reached = count_to_threshold(curve, 0.4)
    assert (reached.name, reached.value) == ("rollouts_to_threshold", 64)
    missed = count_to_threshold(curve, 0.5)
    assert missed.value is None
    assert missed.reason == "0.5 was not reached in 128 rollouts"
    assert "no point" in str(count_to_threshold(LearningCurve("steps", (), ()), 0.5).reason)


@pytest.mark.parametrize(
    ("counts", "scores", "message"),
    [
        ((1, 1), ((0.1,), (0.2,)), "counts must be >= 0 and rise"),
        ((-1, 1), ((0.1,), (0.2,)), "counts must be >= 0 and rise"),
        ((0, 1), ((0.1,),), "2 counts need as many rows"),
        ((0, 1), ((0.1,), (0.2, 0.3)), "of the same examples"),
        ((0, 1), ((), ()), "of the same examples"),
    ],
)
def test_a_curve_that_is_none_is_refused(
    counts: tuple[int, ...], scores: tuple[tuple[float, ...], ...], message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        LearningCurve("steps", counts, scores)


def test_percentiles_are_those_of_numpy() -> None:
    import numpy as np

    values = [random.Random(1).random() for _ in range(57)]
    interval = percentile_interval(values)
    expected = np.percentile(values, [2.5, 97.5])
    assert [interval.low, interval.high] == pytest.approx(expected.tolist())
