"""Routes between two arms, as functions of numbers."""

from statistics import fmean

import pytest

from fastslow.measure.scores.route import Answers, mixture, shares_sent


def test_the_hardest_share_is_sent_rounded_to_whole_questions() -> None:
    assert shares_sent([0.1, 0.9, 0.8, 0.2], 0.5) == [0, 1, 1, 0]
    assert shares_sent([0.1, 0.9, 0.8, 0.2, 0.3], 0.5) == [0, 1, 1, 0, 1]  # 2.5 becomes 3
    assert shares_sent([1.0, 2.0, 3.0], 0.1) == [0, 0, 0]
    assert shares_sent([1.0, 2.0], 0.99) == [1, 1]


def test_questions_that_tie_at_the_border_go_in_equal_parts() -> None:
    assert shares_sent([1.0, 1.0, 1.0, 1.0], 0.25) == [0.25] * 4
    assert shares_sent([5.0, 2.0, 2.0, 2.0, 0.0], 0.4) == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3, 0])
    assert sum(shares_sent([3.0, 3.0, 1.0, 1.0, 1.0, 0.0], 0.5)) == pytest.approx(3)


def test_a_question_that_is_sent_on_is_paid_for_under_both_prompts() -> None:
    cheap, strong = Answers([1, 0, 0, 1], [10, 20, 30, 40]), Answers([1, 1, 0, 0], [100] * 4)
    route = mixture(cheap, strong, [0, 1, 1, 0], are_read=True)
    assert (list(route.scores), list(route.tokens)) == ([1, 1, 0, 1], [10, 120, 130, 40])
    chance = mixture(cheap, strong, [0.5] * 4, are_read=False)
    assert (fmean(chance.scores), fmean(chance.tokens)) == (0.5, 0.5 * 25 + 0.5 * 100)
