"""Power by simulation, against what it is in closed form."""

import pytest
from scipy.stats import nct, norm, t

from fastslow.measure.stats.intervals import Z_DETECT
from fastslow.measure.stats.power import power


@pytest.mark.parametrize(("df", "effect"), [(2, 1.0), (2, 4.0), (4, 3.0), (30, 2.0)])
def test_of_one_source_it_is_that_of_a_t_test(df: int, effect: float) -> None:
    exact = nct.sf(t.ppf(0.975, df), df, effect)
    assert power({"seeds": (1.0, df)}, effect) == pytest.approx(exact, abs=0.03)


def test_with_much_to_estimate_from_it_is_the_normal_one() -> None:
    sources = {"seeds": (0.5, 100_000.0), "examples": (0.5, 100_000.0)}
    assert power(sources, Z_DETECT) == pytest.approx(0.8, abs=0.03)
    assert power(sources, 0.0) == pytest.approx(norm.sf(1.96), abs=0.02)


def test_it_depends_on_neither_the_sign_nor_the_unit() -> None:
    sources = {"seeds": (0.01, 2.0), "examples": (0.02, 60.0)}
    thousandfold = {name: (square * 1e6, df) for name, (square, df) in sources.items()}
    assert power(sources, 0.3) == power(sources, -0.3) == power(thousandfold, 300.0)


def test_without_a_spread_there_is_none() -> None:
    assert power({}, 0.1) is None
    assert power({"seeds": (0.0, 2.0)}, 0.1) is None
