"""What no new text may be, and who enters the pool: for any texts and scores."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastslow.channels.fast.pool import Pool
from fastslow.channels.fast.text_guards import (
    CAUSES,
    Guard,
    copied_answers,
    identity,
    is_garbage,
    is_loop,
)
from fastslow.core.prompts import Candidate, Demonstration, Lineage, PromptProgram
from fastslow.core.types import Example

PROBLEMS = [Example(str(i), f"country {i}", f"land{i}") for i in range(5)]
GOOD = "Answer with the name of the continent, nothing else."


def guard(**limits: int) -> Guard:
    return Guard(
        max_instruction_chars=limits.get("chars", 100),
        max_prompt_tokens=limits.get("tokens"),
        count_tokens=lambda program: program.num_chars,
        scored_on=PROBLEMS,
    )


def text(instruction: str, *shown: tuple[str, str]) -> PromptProgram:
    return PromptProgram(instruction, tuple(Demonstration(q, a) for q, a in shown))


def pool_of(*scores: Mapping[str, float]) -> Pool:
    pool = Pool(guard(), Lineage(stage=1, cycle=2, weights="w"), lambda pool: None)
    for number, found in enumerate(scores):
        pool.keep(Candidate(text(f"Old {number}."), found))
    return pool


@pytest.mark.parametrize(
    "instruction",
    [
        "",
        "  \n",
        "...",
        '{"new_instruction": "Answer."',
        "```\nAnswer.\n```",
        "[[ ## answer ## ]] Answer.",
        "Given current_instruction and feedback, answer.",
        "Answer.<|im_end|>",
        "Answer\x1b[31m.",
        "Answer\u202e.",
        "Answer\r\r.",
        "Answer \U000e0048\U000e0049.",
        "Answer \ue000.",
        "answer the question now " * 10,
    ],
)
def test_a_failure_of_a_language_model_is_no_instruction(instruction: str) -> None:
    assert is_garbage(instruction)
    assert guard(chars=10**6).cause(text(instruction), has_new_instruction=True) == "garbage"


@pytest.mark.parametrize(
    "instruction",
    [
        *(
            GOOD,
            "Réponds.",
            "答えなさい。",
            "1. Read.\n2.\tAnswer.",
            'Write "x" as {"a": 1}.',
            "Go 🙂",
        ),
        "به پرسش پاسخ می\u200cدهید.",  # noqa: RUF001  # Persian: a joiner keeps letters apart
        "उत्तर क्\u200dष में दें।",  # Hindi: one that keeps them together
        "ענה \u200f(כן)\u200f.",
        "Read.\r\nAnswer.\r\n",
        "Be kind 👩\u200d👩\u200d👧\ufe0f \U0001fae9.",  # newer than Python's tables
        "Answer in English \U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f.",
    ],
)
def test_an_instruction_is_no_garbage(instruction: str) -> None:
    assert not is_garbage(instruction)


@given(st.lists(st.sampled_from("abcdefgh"), min_size=5, max_size=30), st.integers(4, 9))
def test_a_text_said_four_times_over_is_a_loop(words: list[str], times: int) -> None:
    assert is_loop(" ".join(words * times))


@given(st.lists(st.integers(), min_size=1, max_size=60, unique=True))
def test_words_that_never_repeat_are_no_loop(words: list[int]) -> None:
    assert not is_loop(" ".join(map(str, words)))


@given(st.text(max_size=200), st.integers(1, 150), st.integers(1, 150))
def test_what_passes_is_within_both_limits(instruction: str, chars: int, tokens: int) -> None:
    cause = guard(chars=chars, tokens=tokens).cause(text(instruction), has_new_instruction=True)
    if cause is None:
        assert len(instruction) <= min(chars, tokens)
        assert not is_garbage(instruction)


def test_limits_are_named() -> None:
    assert guard(chars=20).cause(text(GOOD), has_new_instruction=True) == "too_long"
    assert guard(tokens=20).cause(text(GOOD), has_new_instruction=True) == "too_many_tokens"
    shown = text("Answer.", ("a long question", "and its answer"))
    assert guard(tokens=20).cause(shown, has_new_instruction=False) == "too_many_tokens"


def test_an_instruction_that_is_old_is_not_judged_again() -> None:
    assert guard().cause(text(""), has_new_instruction=False) is None
    assert guard(chars=5).cause(text(GOOD), has_new_instruction=False) is None


def test_a_copy_of_the_answers_is_refused_and_a_coincidence_is_not() -> None:
    pairs = [f"Country {i} is LAND{i}." for i in range(5)]
    assert copied_answers(text(" ".join(pairs)), PROBLEMS) == 5
    assert copied_answers(text("Say land1, land2, land3 or land4."), PROBLEMS) == 0
    assert copied_answers(text("country 11 is land11"), PROBLEMS) == 0
    assert guard().cause(text(" ".join(pairs[:2])), has_new_instruction=True) is None
    assert guard().cause(text(" ".join(pairs[:3])), has_new_instruction=True) == "answer_key"
    shown = text("Answer.", *[(p.question, p.answer) for p in PROBLEMS[:3]])
    assert guard().cause(shown, has_new_instruction=False) == "answer_key"


@given(st.text(alphabet="aB \n\t", max_size=20), st.text(alphabet=" \n\t", max_size=5))
def test_letter_case_and_white_space_make_no_new_text(words: str, space: str) -> None:
    assert identity(text(space + words.upper() + space)) == identity(text(words.lower()))
    assert identity(text(words)) != identity(text(words, ("q", "a")))


def test_a_repetition_is_refused_and_every_refusal_is_counted() -> None:
    pool = pool_of({"a": 0.5})
    assert pool.refuses(text("old  0."))
    assert not pool.refuses(text("Another."))
    assert pool.refuses(text("Another. "))
    assert pool.refuses(text("{"))
    figures = pool.figures()
    assert figures["proposals"] == 4
    assert {c: figures[f"refused_{c}"] for c in CAUSES if figures[f"refused_{c}"]} == {
        "duplicate": 2,
        "garbage": 1,
    }


@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=3, max_size=3),
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=3, max_size=3),
)
def test_a_child_enters_only_if_its_mean_is_higher_than_its_parents(
    old: list[float], new: list[float]
) -> None:
    pool = pool_of(dict(zip("abc", old, strict=True)))
    parent = text("Old 0.").text_hash
    entered = pool.enter(text("Child."), dict(zip("abc", new, strict=True)), parent, "gepa")
    assert entered == (sum(new) > sum(old))
    assert len(pool.candidates) == 1 + entered
    assert pool.refused["not_better"] == 1 - entered


def test_a_grandchild_of_a_refused_text_must_beat_who_is_in_the_pool() -> None:
    pool = pool_of({"a": 0.5})
    child, grandchild = text("Child."), text("Grandchild.")
    assert not pool.enter(child, {"a": 0.25}, text("Old 0.").text_hash, "gepa")
    assert not pool.enter(grandchild, {"a": 0.5}, child.text_hash, "gepa")
    assert pool.enter(text("Last."), {"a": 1.0}, grandchild.text_hash, "gepa")
    lineage = pool.candidates[-1].program.lineage
    assert lineage == Lineage("gepa", grandchild.text_hash, stage=1, cycle=2, weights="w")


def test_scores_without_differences_are_said() -> None:
    assert pool_of({"a": 0.0}, {"a": 0.0}).notes()[0].startswith("every prompt scores 0")
    assert pool_of({"a": 1.0}, {"a": 1.0}).notes()[0].startswith("every prompt scores 1")
    assert pool_of({"a": 1.0}, {"a": 0.0}).notes() == ()
