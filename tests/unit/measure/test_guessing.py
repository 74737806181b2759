"""Guessing, worked by hand: both guesses, what is above them, and answers that have become one."""

from collections.abc import Sequence
from typing import TypeAlias

import pytest

from fastslow.core.types import Example
from fastslow.measure.scores.guessing import (
    MAX_ANSWERS,
    Guess,
    answer_spread,
    collapse_sentence,
    guess,
)
from fastslow.task.graders import exact_match
from fastslow.task.registry import build_task

Answers: TypeAlias = Sequence[tuple[Example, str]]


def examples(answers: str, split: str = "test") -> tuple[Example, ...]:
    """An example per letter, with that answer."""
    return tuple(Example(f"{split}-{i}", f"{split} {i}", a) for i, a in enumerate(answers))


def score(answers: Answers) -> list[float]:
    return [exact_match(example, text).score for example, text in answers]


def test_both_guesses_come_from_train_and_are_graded_on_test() -> None:
    result = guess(examples("aaabbc", "train"), examples("bbba"), score)
    assert (result.answer, result.num_answers, result.num_gold) == ("a", 3, 2)
    assert result.constant_score == 0.25  # b is commoner in test, which a guess must not know
    assert result.uniform_score == pytest.approx(1 / 3)
    assert guess(examples("ba", "train") * 2, examples("b"), score).answer == "a"  # a tie


def test_partial_credit_counts_in_both_guesses() -> None:
    def near(answers: Answers) -> list[float]:
        return [1 - abs(int(example.answer) - int(text)) / 10 for example, text in answers]

    result = guess(examples("5519", "train"), examples("19"), near)
    assert result.constant == pytest.approx({"test-0": 0.6, "test-1": 0.6})
    # of 1, 5 and 9: to 1 it scores 1, .6, .2; to 9 the same the other way round
    assert result.uniform == pytest.approx({"test-0": 0.6, "test-1": 0.6})


def test_where_a_uniform_guess_says_little_there_is_none_and_a_reason() -> None:
    many = tuple(Example(f"t{i}", f"q{i}", str(i % 60)) for i in range(120))
    result = guess(many, examples("1"), score)
    assert result.uniform_score is None
    assert result.reason == f"train has 60 distinct answers, more than {MAX_ANSWERS}"
    result = guess(examples("abc", "train"), examples("a"), score)
    assert (result.uniform, result.reason) == (None, "no answer of train repeats")


def test_the_constant_answer_of_a_shipped_task_is_far_above_zero() -> None:
    task = build_task("word_valence", None, None)
    result = guess(task.train, task.test, score)
    assert result.constant_score > 0.4
    assert result.uniform_score == pytest.approx(1 / result.num_answers)


def chance(constant: str, uniform: float = 1 / 3) -> Guess:
    ids = [f"e{i}" for i in range(len(constant))]
    scores = dict(zip(ids, map(float, constant), strict=True))
    return Guess("medium", scores, dict.fromkeys(ids, uniform), None, 3, 3)


def test_a_score_is_above_chance_only_if_it_is_significantly_above_both_guesses() -> None:
    guesses, ids = chance("1" * 21 + "0" * 11), [f"e{i}" for i in range(32)]

    def scores(right: range) -> dict[str, float]:
        return {example: float(i in right) for i, example in enumerate(ids)}

    assert not guesses.is_below(scores(range(14)))  # 0.44, the constant 0.66
    assert not guesses.is_below(scores(range(26)))  # five more right: p = 2 / 2^5
    assert guesses.is_below(scores(range(27)))  # six more: p = 2 / 2^6
    assert not chance("0" * 32, uniform=0.8).is_below(scores(range(27)))
    assert not guesses.is_below({})
    one_source = dict.fromkeys(ids[21:27], "s")  # the six that rose are one text
    assert not guesses.is_below(scores(range(27)), one_source)
    assert guesses.best_on(ids[21:]) == pytest.approx(1 / 3)


def test_entropy_and_share_are_those_of_answers_as_graders_compare_them() -> None:
    spread = answer_spread([("High.", 1.0), (" high\n", 0.0), ("low", 0.0), ("So: #### LOW", 1.0)])
    assert (spread.answer, spread.count, spread.right, spread.distinct) == ("high", 2, 1, 2)
    assert (spread.share, spread.entropy) == (0.5, 1.0)
    assert answer_spread([("x", 0.0)]).entropy == 0.0


def test_answers_that_have_become_one_and_wrong_raise_the_alarm() -> None:
    spread = answer_spread([("high", float(i < 14)) for i in range(32)])
    assert spread.is_collapsed()
    assert spread.is_collapsed(num_gold=3)
    assert not spread.is_collapsed(num_gold=1)  # the gold has no range that could be lost
    guesses = chance("1" * 21 + "0" * 11)
    assert collapse_sentence("word_valence", spread, 2, guesses) == (
        "word_valence: 32 of 32 answers are 'high' after stage 2 "
        "(a constant 'medium' would score 0.656)"
    )
    hostile = answer_spread([("\x1b[2J" + "y" * 99, 0.0)] * 9)
    assert "\x1b" not in collapse_sentence("t", hostile, 1, None)
    assert len(collapse_sentence("t", hostile, 1, None)) < 90


def test_a_policy_that_is_right_on_a_lopsided_task_has_not_collapsed() -> None:
    right = [("no", 1.0)] * 29 + [("yes", 1.0)] * 3
    assert not answer_spread(right).is_collapsed()
    assert not answer_spread([("no", 1.0)] * 31 + [("no", 0.0)] + [("yes", 1.0)]).is_collapsed()
    assert not answer_spread([("no", 0.0)] * 7).is_collapsed()  # too few to say


def test_a_perfect_score_is_above_a_uniform_guess_that_is_the_same_everywhere() -> None:
    examples = [Example(str(i), f"q{i}", "ab"[i % 2]) for i in range(16)]
    guesses = guess(examples, examples, score)
    assert guesses.uniform_score == 0.5
    assert guesses.is_below({example.id: 1.0 for example in examples})
    assert not guesses.is_below({example.id: 0.5 for example in examples})
