"""The largest spread of a token over reasonings, by hand; no model."""

import math

import pytest

from fastslow.measure.model.reference_spread import ReferenceSpreadConfig, max_spread


def test_reasonings_that_agree_give_nothing_and_the_token_that_varies_most_decides() -> None:
    assert max_spread([(-0.3, -1.7)] * 4) == 0
    # tokens at (-1, -3), (-2, -2) and (-5, -4): n - 1 in the denominator
    assert max_spread([(-1.0, -2.0, -5.0), (-3.0, -2.0, -4.0)]) == pytest.approx(math.sqrt(2))
    assert max_spread([(-1.0,), (-1.0,), (-4.0,)]) == pytest.approx(math.sqrt(3))


def test_one_completion_has_no_spread_and_is_refused() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        ReferenceSpreadConfig(rollouts=1)
