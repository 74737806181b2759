import random

import pytest

from fastslow.core.errors import EvaluationError
from fastslow.measure.model.proxies import plasticity_proxies
from fastslow.measure.scores.curves import LearningCurve
from fastslow.measure.scores.plasticity import Probe, probe_estimates, probe_metrics


def curve(*means: float, examples: int = 1) -> LearningCurve:
    """Every example scores the mean of its point."""
    counts = tuple(range(len(means)))
    return LearningCurve("steps", counts, tuple((mean,) * examples for mean in means))


def answered(*right: int, examples: int = 20) -> LearningCurve:
    """The first `right` of the examples are solved at each point."""
    rows = tuple(tuple(float(i < count) for i in range(examples)) for count in right)
    return LearningCurve("steps", tuple(range(len(right))), rows)


def test_weights_that_learn_nothing_while_the_base_does_are_stalled() -> None:
    stuck = probe_metrics(Probe((curve(0.3, 0.31),), (curve(0.1, 0.5),), "merge"), noise_floor=0.02)
    assert stuck["probe_stalled"].value == 1
    assert stuck["probe_gain"].value == pytest.approx(0.01)
    assert stuck["probe_start_difference"].value == pytest.approx(0.2)
    alive = probe_metrics(Probe((curve(0.3, 0.6),), (curve(0.1, 0.5),), "merge"))
    assert alive["probe_stalled"].value == 0
    assert alive["probe_gain_ratio"].formula.endswith("adapter policy merge")


def test_ratios_to_a_base_that_learned_nothing_are_undefined() -> None:
    flat = probe_metrics(Probe((curve(0.1, 0.4),), (curve(0.0, 0.0),), "continue"))
    for name in ("probe_end_ratio", "probe_gain_ratio", "probe_auc_ratio", "probe_stalled"):
        assert flat[name].value is None, name
        assert "the base" in str(flat[name].reason)
    assert flat["probe_end_difference"].value == pytest.approx(0.4)


def test_steps_to_a_threshold_are_given_for_both_sides() -> None:
    probe = Probe((curve(0.1, 0.2, 0.3),), (curve(0.1, 0.5, 0.6),), "merge")
    measured = probe_metrics(probe, threshold=0.5)
    assert measured["probe_steps_to_threshold"].reason == "0.5 was not reached in 2 steps"
    assert measured["probe_steps_to_threshold_base"].value == 1
    assert "probe_steps_to_threshold" not in probe_metrics(probe)


def test_seeds_are_averaged_before_anything_is_divided() -> None:
    probe = Probe((curve(0.0, 0.2), curve(0.0, 0.4)), (curve(0.0, 0.4), curve(0.0, 0.8)), "merge")
    assert probe_metrics(probe)["probe_gain_ratio"].value == pytest.approx(0.5)


def test_intervals_come_from_drawing_the_same_examples_for_both_sides() -> None:
    probe = Probe((answered(2, 6, 8),), (answered(2, 10, 16),), "merge")
    estimates = probe_estimates(probe, random.Random(0), resamples=200)
    end = estimates["probe_end_difference"]
    assert end.interval is not None
    assert end.interval.low < -0.4 < end.interval.high < 0
    assert "probe_stalled" not in estimates
    same = Probe((answered(2, 6, 8),), (answered(2, 6, 8),), "merge")
    zero = probe_estimates(same, random.Random(0), resamples=40)["probe_end_difference"]
    assert zero.interval is not None
    assert (zero.interval.low, zero.interval.high) == (0, 0)


def test_intervals_that_cannot_be_given_have_a_reason() -> None:
    alone = Probe((curve(0.1, 0.2),), (curve(0.1, 0.3),), "merge")
    reasons = {e.interval_reason for e in probe_estimates(alone, random.Random(0)).values()}
    assert reasons == {"one example has no spread"}
    rare = Probe((answered(0, 5),), (answered(0, 1),), "merge")
    ratio = probe_estimates(rare, random.Random(0), resamples=100)["probe_gain_ratio"]
    assert ratio.interval is None
    assert "of 100 bootstrap draws" in str(ratio.interval_reason)


@pytest.mark.parametrize(
    ("tuned", "base"),
    [
        ((curve(0.1, 0.2),), (curve(0.1, 0.2, 0.3),)),
        ((curve(0.1, 0.2),), ()),
        ((curve(0.1, 0.2),), (curve(0.1, 0.2), curve(0.1, 0.2))),
        ((curve(0.1, 0.2),), (curve(0.1, 0.2, examples=2),)),
        ((curve(0.1),), (curve(0.1),)),
    ],
)
def test_sides_that_cannot_be_compared_are_refused(
    tuned: tuple[LearningCurve, ...], base: tuple[LearningCurve, ...]
) -> None:
    with pytest.raises(EvaluationError, match="Both sides need the same seeds"):
        Probe(tuned, base, "merge")


def test_dormant_units_are_counted_by_both_definitions() -> None:
    units = {"a": [0.0, 0.01, 1.0, 1.0]}
    proxies = plasticity_proxies([1], units, {"a": [0.0, 0.009, 0.01, 1.0]}, 9)
    assert proxies["tau_dormant_frac"].value == 0.5
    assert proxies["inactive_frac"].value == 0.5


def test_proxies_of_silent_layers_and_of_unknown_models_are_undefined_with_a_reason() -> None:
    pooled = plasticity_proxies([3, 1], {"a": [1, 0], "b": [1, 1]}, {"a": [1, 0], "b": [1, 1]}, 9)
    assert pooled["tau_dormant_frac"].value == pooled["inactive_frac"].value == 0.25
    assert "mean over layers a, b" in pooled["tau_dormant_frac"].formula
    silent = plasticity_proxies([0, 0], {"a": [0, 0]}, {"a": [0, 0]}, 9)
    assert silent["tau_dormant_frac"].reason == "every unit of the layer is silent"
    assert silent["feature_effective_rank"].reason == "a matrix of zeros has no rank"
    assert silent["inactive_frac"].value == 1
    unknown = plasticity_proxies([1], {}, {}, 9)
    assert "no layer of units" in str(unknown["inactive_frac"].reason)
