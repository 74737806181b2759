"""Partial rank correlations: against residuals by hand, planted dependence, and a null."""

import numpy as np
import pytest
from scipy.stats import rankdata

from fastslow.measure.stats.partial import correlate_layers
from fastslow.measure.stats.rank_figures import centred_ranks, partial_correlations

UNITS = 1536


def partial_spearman(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> float:
    ranks = centred_ranks(np.stack([x, y, z]))
    return float(partial_correlations(ranks[:1], ranks[1], ranks[2:])[0])


def planted(seed: int, strength: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x and y that both follow z, and each other by `strength` beyond it."""
    generator = np.random.default_rng(seed)
    z, common, a, b = generator.normal(size=(4, UNITS))
    x, y = (2 * z + np.sqrt(strength) * common + np.sqrt(1 - strength) * noise for noise in (a, b))
    return x, np.exp(y), z


def test_a_partial_correlation_is_that_of_the_residuals_of_ranks() -> None:
    x, y, z = planted(0, 0.3)
    ranks = [rankdata(column) for column in (x, y, z)]
    residuals = [r - np.polyval(np.polyfit(ranks[2], r, 1), ranks[2]) for r in ranks[:2]]
    by_hand = np.corrcoef(*residuals)[0, 1]
    assert partial_spearman(x, y, z) == pytest.approx(by_hand, abs=1e-9)
    assert np.isnan(partial_spearman(x, np.zeros(UNITS), z))
    assert np.isnan(partial_spearman(x, z, z))


def test_a_planted_dependence_is_found_and_a_permuted_one_is_not() -> None:
    columns = [planted(seed, 0.3) for seed in range(4)]
    shuffled = [
        (np.random.default_rng(seed).permutation(x), y, z) for seed, (x, y, z) in enumerate(columns)
    ]
    for layers, dependent in ((columns, True), (shuffled, False)):
        listed = [(x, {"y": y}, z) for x, y, z in layers]
        correlation = correlate_layers(listed, {}, 999, 5)["y"]
        assert correlation.interval is not None
        assert len(correlation.layers) == 4
        if dependent:
            assert correlation.mean == pytest.approx(0.29, abs=0.05)
            assert correlation.interval.low > 0.2
            assert correlation.p_value == 0.001
        else:
            assert all(abs(value) < 0.1 for value in correlation.layers)
            assert abs(correlation.mean) < 0.05
            assert correlation.p_value > 0.01


def test_a_difference_is_paired_by_layer_and_leaves_out_layers_where_it_is_not_defined() -> None:
    (x, y, z), (u, v, w), (q, _, s) = (planted(seed, 0.3) for seed in (1, 2, 3))
    noise = np.random.default_rng(9).normal(size=UNITS)
    layers = [
        (x, {"gradient": y, "control": noise}, z),
        (u, {"gradient": v, "control": v}, w),
        (q, {"gradient": np.zeros(UNITS), "control": noise}, s),
    ]
    found = correlate_layers(layers, {"bridge": ("gradient", "control")}, 99, 0)
    assert len(found["gradient"].layers) == 2
    assert len(found["control"].layers) == 3
    assert found["bridge"].layers == pytest.approx(
        [partial_spearman(x, y, z) - partial_spearman(x, noise, z), 0.0], abs=1e-9
    )
    assert correlate_layers(layers[2:], {"bridge": ("gradient", "control")}, 9, 0).keys() == {
        "control"
    }
