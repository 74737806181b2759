"""Graders score what they say, and survive any text."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastslow.core.types import Example, Grade
from fastslow.task.graders import CORRECT, boxed_match, exact_match, numeric, quote

few = settings(max_examples=25, deadline=None)

Grader = Callable[[Example, str], Grade]


def example(answer: str) -> Example:
    return Example(id="e", question="?", answer=answer)


@pytest.mark.parametrize("text", ["Africa", " Africa\n", "Africa.", "Africa. "])
def test_exact_match_ignores_outer_white_space_and_one_full_stop(text: str) -> None:
    assert exact_match(example("Africa"), text) == Grade(1.0, CORRECT)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", 'Nothing was written; the answer is "Africa".'),
        (".", 'Nothing was written; the answer is "Africa".'),
        ("africa", 'Write "Africa" with exactly these capitals, not "africa".'),
        ("East Africa", 'Write "Africa" alone, without other words: "East Africa".'),
        ("Africans", 'The answer is "Africa", not "Africans".'),
        ("Africa..", 'Write "Africa" alone, without other words: "Africa.".'),
        ("Asia\n", 'The answer is "Africa", not "Asia".'),
    ],
)
def test_exact_match_says_what_is_wrong(text: str, reason: str) -> None:
    assert exact_match(example("Africa"), text) == Grade(0.0, reason)


@pytest.mark.parametrize("text", ["1200", "1,200", "it is 1200.0", "7 #### 1.2e3", "3 + 9 = 1200."])
def test_numeric_takes_the_last_number_by_value(text: str) -> None:
    assert numeric(example("#### 1200"), text).score == 1.0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("none", 'Write the result as a number; it is "1200".'),
        ("1200 #### none", 'Write the result as a number; it is "1200".'),
        ("1200 then 5", 'The result is "1200", not "5".'),
        ("-1200", 'The result is "1200", not "-1200".'),
    ],
)
def test_numeric_says_what_is_wrong(text: str, reason: str) -> None:
    assert numeric(example("1200"), text) == Grade(0.0, reason)


def test_numeric_scores_zero_when_the_gold_answer_holds_no_number() -> None:
    assert numeric(example("many"), "5").score == 0.0


@pytest.mark.parametrize("text", [r"\boxed{1,2}", r"so \boxed{3} no, \boxed{ 1, 2 } it is"])
def test_boxed_match_compares_the_last_box_without_white_space(text: str) -> None:
    assert boxed_match(example(r"\boxed{1,2}"), text) == Grade(1.0, CORRECT)


@pytest.mark.parametrize("text", ["1,2", r"\boxed{1,2", r"\boxed{2,1}", r"\boxed{1,2} \boxed{}"])
def test_boxed_match_scores_zero_for_any_other_box(text: str) -> None:
    assert boxed_match(example(r"\boxed{1,2}"), text).score == 0.0


@pytest.mark.parametrize("grader", [exact_match, numeric, boxed_match])
@few
@given(answer=st.text(max_size=20), text=st.text(st.characters(), max_size=300))
def test_no_text_makes_a_grader_raise(grader: Grader, answer: str, text: str) -> None:
    grade = grader(example(answer), text)
    assert grade.score in (0.0, 1.0)
    assert (grade.reason == CORRECT) == (grade.score == 1.0)


@pytest.mark.parametrize("grader", [exact_match, numeric, boxed_match])
@pytest.mark.parametrize(
    "text", ["9" * 200_000, r"\boxed{" * 20_000, "(" * 100_000, "1e999", ",".join("1" * 50_000)]
)
def test_long_texts_are_graded_at_once(grader: Grader, text: str) -> None:
    assert grader(example(r"\boxed{7}"), text).score == 0.0


@few
@given(st.text(st.characters()))
def test_a_quoted_text_is_one_short_line_that_can_be_encoded(text: str) -> None:
    shown = quote(text)
    assert len(shown) <= 62
    assert len(shown.splitlines()) == 1
    assert shown.encode()
