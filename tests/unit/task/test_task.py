"""The task contract: splits checked at construction, schemas from annotations, packages named."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fastslow.core.errors import TaskError
from fastslow.core.types import Example
from fastslow.task.definition import Task, TaskConfig, TaskDefinition, task
from fastslow.task.graders import exact_match
from fastslow.task.splits import balanced_order, content_id, facts_to_splits, without_repeats

few = settings(max_examples=25, deadline=None)


class Toy(TaskConfig):
    """Parameters of the toy task."""

    answer: str = "yes"
    """What every answer is."""


@task(name="toy", version=3, source="made here")
def toy(config: Toy) -> Task:
    """A task for these tests."""
    return build(*(example(split, config.answer) for split in ("train", "validation", "test")))


def example(name: str, answer: str = "yes") -> Example:
    return Example(id=name, question=f"{name}?", answer=answer)


def build(*examples: Example, **changes: Any) -> Task:
    train, validation, test = ((one,) for one in examples)
    fields = {"train": train, "validation": validation, "test": test} | changes
    return Task(**fields, instruction="Answer.", grade=exact_match, max_tokens=4)


def test_a_built_task_carries_the_name_of_the_run_and_the_version() -> None:
    built = toy.build("mine", {"answer": "no"})
    assert (built.name, built.version, built.test[0].answer) == ("mine", "toy@3", "no")
    assert toy.build("mine", Toy(answer="no")) == built
    assert toy.doc == "A task for these tests."


def test_a_parameter_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValidationError, match="anwser"):
        toy.build("mine", {"anwser": "no"})


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_an_empty_split_is_refused(split: str) -> None:
    with pytest.raises(TaskError, match=f"the {split} split is empty"):
        build(example("a"), example("b"), example("c"), **{split: ()})


def test_an_id_that_repeats_is_refused() -> None:
    with pytest.raises(TaskError, match="example id 'a' is in train and again in test"):
        build(example("a"), example("b"), Example("a", "other?", "yes"))


def test_a_question_in_two_splits_is_refused() -> None:
    with pytest.raises(TaskError, match=r"the question of 'c' is in train and in test: 'a\?'"):
        build(example("a"), example("b"), Example("c", "a?", "yes"))


def test_a_question_may_repeat_within_a_split() -> None:
    twice = (Example("a", "a?", "yes"), Example("d", "a?", "no"))
    assert build(example("a"), example("b"), example("c"), train=twice).train == twice


def test_a_missing_package_is_named_with_the_way_to_get_it() -> None:
    definition = TaskDefinition(lambda _: None, "t", 1, "here", Toy, ("no_such_package",))  # type: ignore[arg-type, return-value]  # never called
    with pytest.raises(TaskError, match=r"'no_such_package'.*pip install no-such-package"):
        definition.build("t")


def unannotated(config): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201  # the point


def of_a_number(config: int) -> Task: ...  # type: ignore[empty-body]  # never called


def of_two(config: Toy, other: Toy) -> Task: ...  # type: ignore[empty-body]  # never called


@pytest.mark.parametrize("function", [unannotated, of_a_number, of_two])
def test_a_task_function_must_take_one_task_config(function: Any) -> None:
    with pytest.raises(TypeError, match="must take one argument annotated with a TaskConfig"):
        task(name="t", version=1, source="here")(function)


@few
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.integers(0, 9))
def test_every_beginning_of_a_balanced_order_holds_the_labels_in_proportion(
    labels: list[str], seed: int
) -> None:
    ordered = balanced_order(((index, label) for index, label in enumerate(labels)), seed)
    assert sorted(ordered) == list(range(len(labels)))
    for length, label in product(range(len(labels) + 1), "abc"):
        share = labels.count(label) / len(labels)
        got = sum(labels[index] == label for index in ordered[:length])
        assert abs(got - share * length) <= 1.5


def facts(size: int) -> dict[str, str]:
    return {f"q{i}": "even" if i % 2 == 0 else "odd" for i in range(size)}


def test_facts_are_cut_alike_whatever_their_order() -> None:
    table = facts(40)
    backwards = dict(reversed(table.items()))
    cut = facts_to_splits(table, validation=6, test=10, seed=1)
    assert facts_to_splits(backwards, validation=6, test=10, seed=1) == cut
    assert facts_to_splits(table, validation=6, test=10, seed=2) != cut
    assert [len(split) for split in cut] == [24, 6, 10]
    assert sum(e.answer == "odd" for e in cut.test) == 5
    assert {e.question: e.answer for split in cut for e in split} == table


def test_facts_that_leave_nothing_for_train_are_refused() -> None:
    with pytest.raises(TaskError, match="16 facts cannot give 6 validation and 10 test"):
        facts_to_splits(facts(16), validation=6, test=10, seed=1)


def test_repeats_are_dropped_across_calls() -> None:
    taken: set[str] = set()
    one, two = example("a"), Example("b", "a?", "no")
    assert without_repeats([one, two], taken) == [one]
    assert without_repeats([two], taken) == []


def test_the_id_of_a_text_is_pinned_and_survives_lone_surrogates() -> None:
    assert content_id("abc") == "ba7816bf8f01"
    assert len(content_id("\ud800")) == 12
