"""Closed sets of answers: what counts as naming one, and what a task does with its two keys."""

import unicodedata

import cloudpickle  # type: ignore[import-untyped]  # it ships no types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastslow.core.errors import TaskError
from fastslow.core.types import Example
from fastslow.task.choices import mention
from fastslow.task.contract import JUNK, contract_failures
from fastslow.task.registry import build_task

CONTINENTS = ("Africa", "Asia", "North America", "South America", "Oceania")
TOPICS = ("Business", "Sports", "World", "Science and Technology", "News")
MOODS = ("positive", "very positive", "negative", "Café")


def score(answers: tuple[str, ...], gold: str, text: str) -> float:
    return mention(answers)(Example(id="e", question="?", answer=gold), text).score


@pytest.mark.parametrize(
    ("answers", "gold", "text"),
    [
        (CONTINENTS, "Africa", "The country is located in AFRICA."),
        (CONTINENTS, "Africa", "**Africa**"),
        (CONTINENTS, "Africa", "Africa's, Africa; Africas"),
        (CONTINENTS, "North America", "north-america"),
        (CONTINENTS, "North America", "North\nAmerica_"),
        (TOPICS, "Sports", "It is about sport"),
        (TOPICS, "Business", "businesses"),
        (TOPICS, "Science and Technology", "Sciences, and technology?"),
        (MOODS, "very positive", "I am very positive!"),
        (MOODS, "positive", "positively? no: positive"),
        (MOODS, "Café", unicodedata.normalize("NFD", "café")),
    ],
)
def test_one_answer_is_named(answers: tuple[str, ...], gold: str, text: str) -> None:
    assert score(answers, gold, text) == 1


@pytest.mark.parametrize(
    ("answers", "gold", "text"),
    [
        (CONTINENTS, "Africa", ""),
        (CONTINENTS, "Africa", "Asia"),
        (CONTINENTS, "Africa", "Africa or Asia"),
        (CONTINENTS, "Africa", "African"),
        (CONTINENTS, "Africa", "SubAfrica"),
        (CONTINENTS, "North America", "America"),
        (CONTINENTS, "North America", "North of America"),
        (TOPICS, "News", "It is new."),
        (TOPICS, "World", "worldsy"),
        (MOODS, "positive", "very positive"),
        (MOODS, "very positive", "very positive, or positive"),
        (MOODS, "Café", "cafe"),
    ],
)
def test_none_or_another_or_several_are_named(
    answers: tuple[str, ...], gold: str, text: str
) -> None:
    assert score(answers, gold, text) == 0


def test_its_reason_teaches() -> None:
    grade, example = mention(CONTINENTS), Example(id="e", question="?", answer="Africa")
    assert grade(example, "I do not know").reason == (
        'Name one of the answers, not "I do not know"; the answer is "Africa".'
    )
    assert grade(example, "Asia, Africa").reason == (
        'Name one answer alone, not "Africa" and "Asia"; the answer is "Africa".'
    )
    assert grade(example, "in asia").reason == 'The answer is "Africa", not "Asia".'


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (("C", "C++"), 'cannot tell "C" from "C\\+\\+"'),
        (("dog", "Dog"), 'cannot tell "dog" from "Dog"'),
        (("Sport", "Sports"), 'cannot tell "Sport" from "Sports"'),
        (("+", "-"), 'the answer "\\+" has none'),
    ],
)
def test_answers_that_it_cannot_tell_apart_are_refused(
    answers: tuple[str, ...], message: str
) -> None:
    with pytest.raises(TaskError, match=message):
        mention(answers)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=60), st.sampled_from(CONTINENTS))
def test_any_text_is_graded_and_a_name_alone_is_right(text: str, gold: str) -> None:
    grade = cloudpickle.loads(cloudpickle.dumps(mention(CONTINENTS)))
    example = Example(id="e", question="?", answer=gold)
    assert grade(example, text).score in (0, 1)
    assert grade(example, f"...{gold}!").score == 1
    assert [grade(example, junk).score for junk in JUNK] == [0] * len(JUNK)


@pytest.mark.parametrize("name", ["country_continent", "word_valence", "word_language"])
def test_shipped_tasks_list_their_answers_and_say_so_in_their_version(name: str) -> None:
    plain = build_task("t", name, None)
    listed = build_task("t", name, {"options": "listed", "grader": "mention"})
    assert listed.version == f"{plain.version}+listed+mention"
    answers = {example.answer for example in plain.train}
    assert not any(answer in plain.instruction for answer in answers)
    assert listed.instruction.startswith(plain.instruction)
    assert all(answer in listed.instruction for answer in answers)
    assert [e.question for e in listed.test] == [e.question for e in plain.test]
    assert list(contract_failures(listed)) == []
    gold = listed.test[0]
    assert listed.grade(gold, f"I say {gold.answer.upper()}!").score == 1
    assert plain.grade(gold, f"I say {gold.answer.upper()}!").score == 0
