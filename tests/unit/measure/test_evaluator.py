"""The examples that are scored: the same for every run, and no head of a sorted split."""

from itertools import pairwise

import pytest

from fastslow.core.types import Example
from fastslow.measure.evaluator import fixed_sample

SORTED = tuple(Example(str(i), f"q{i}", "no" if i < 200 else "yes") for i in range(400))


@pytest.mark.parametrize("size", [None, 400, 1000])
def test_a_sample_of_a_whole_sorted_split_begins_with_every_label(size: int | None) -> None:
    sample = fixed_sample(SORTED, size, "t@1", "test")
    assert sorted(sample, key=lambda e: int(e.id)) == list(SORTED)
    assert {example.answer for example in sample[:16]} == {"no", "yes"}


def test_a_smaller_sample_is_the_beginning_of_a_larger_one() -> None:
    samples = [fixed_sample(SORTED, size, "t@1", "test") for size in (4, 16, 64, None)]
    for smaller, larger in pairwise(samples):
        assert larger[: len(smaller)] == smaller


def test_a_sample_depends_on_version_and_split() -> None:
    first = fixed_sample(SORTED, 32, "t@1", "test")
    assert fixed_sample(SORTED, 32, "t@2", "test") != first
    assert fixed_sample(SORTED, 32, "t@1", "validation") != first
