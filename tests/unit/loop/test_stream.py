"""The order in which a stage meets its training examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastslow.core.errors import TaskError
from fastslow.core.types import Example
from fastslow.loop.stream import Stream


def stream(size: int, *, seed: int = 0, stage: int = 0, problems: int = 3, pool: int = 4) -> Stream:
    train = [Example(str(i), f"q{i}", "a") for i in range(size)]
    return Stream(
        "t", train, seed=seed, stage=stage, num_cycles=3, steps=2, problems=problems, pool=pool
    )


def batches(source: Stream, cycles: int) -> list[tuple[str, ...]]:
    return [
        tuple(example.id for example in batch.examples)
        for cycle in range(cycles)
        for batch in source.anchor(cycle).batches
    ]


@given(size=st.integers(7, 40), seed=st.integers(0, 5))
def test_batches_are_distinct_problems_that_never_touch_the_pool(size: int, seed: int) -> None:
    source = stream(size, seed=seed)
    pool = {example.id for example in source.anchor(0).pool}
    assert len(pool) == 4
    for batch in batches(source, 6):
        assert len(set(batch)) == 3
        assert not pool & set(batch)


def test_no_problem_comes_again_before_the_others_had_their_turn() -> None:
    first_pass = [i for batch in batches(stream(4 + 12), 2) for i in batch]
    assert len(set(first_pass)) == 12
    second_pass = [i for batch in batches(stream(4 + 12), 4)[4:] for i in batch]
    assert set(second_pass) == set(first_pass)
    assert second_pass != first_pass


def test_an_anchor_depends_on_seed_stage_and_cycle_alone() -> None:
    source = stream(40)
    late = source.anchor(2)
    assert stream(40).anchor(2) == late
    assert stream(40, seed=1).anchor(2) != late
    assert stream(40, stage=1).anchor(2).batches != late.batches


def test_the_anchor_set_is_the_problems_of_all_its_batches_once() -> None:
    anchor = stream(8).anchor(0)  # four problems for six places: one comes twice
    ids = [example.id for example in anchor.examples]
    assert len(ids) == len(set(ids))
    assert set(ids) == {example.id for batch in anchor.batches for example in batch.examples}


def test_too_little_data_is_refused_with_the_number_needed() -> None:
    with pytest.raises(TaskError, match=r"task t: 6 training examples .* Needs at least 7"):
        stream(6)
