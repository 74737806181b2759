"""Passes hold as many rows as have few enough distinct tokens, whatever the rows share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastslow.channels.slow.passes import PassSize
from fastslow.core.errors import ChannelError
from fastslow.core.types import TokenIds
from fastslow.policy.engine.trie import merge

A, B = tuple(range(100)), tuple(range(200, 300))
"""Two prompts that share nothing."""
ROWS = sorted((*prompt, 1000 + i) for prompt in (A, B) for i in range(4))


@pytest.mark.parametrize(
    ("rows", "tokens", "size"),
    [
        (64, 208, 8),  # both prompts once, and every row's own token
        (64, 207, 4),  # a prompt to a pass
        (64, 103, 2),  # passes of 3 would hold rows of both prompts
        (3, 5000, 3),
        (64, 1, 1),  # a row is never cut
    ],
)
def test_the_largest_passes_that_stay_within_the_tokens(rows: int, tokens: int, size: int) -> None:
    assert PassSize(rows, tokens).over(ROWS) == size


row = st.lists(st.integers(0, 2), min_size=1, max_size=6).map(tuple)


@given(st.lists(row, min_size=1, max_size=12), st.integers(1, 40))
def test_no_pass_has_more_distinct_tokens_than_it_may(rows: list[TokenIds], tokens: int) -> None:
    rows.sort()
    size = PassSize(64, tokens).over(rows)
    passes = [rows[start : start + size] for start in range(0, len(rows), size)]
    assert all(len(merge(part).tokens) <= tokens or size == 1 for part in passes)


def test_memory_that_runs_out_halves_the_size_that_was_tried() -> None:
    sizes = []

    def passes(size: int) -> int:
        sizes.append(size)
        if size > 1:
            raise MemoryError
        return size

    pass_size = PassSize(64, 207)
    assert pass_size.fit(passes, lambda: None, ROWS) == 1
    assert sizes == [4, 2, 1]
    assert pass_size.rows == 1
    assert len(pass_size.take_notes()) == 2


def test_not_even_one_row_fits() -> None:
    def passes(size: int) -> int:
        raise MemoryError

    with pytest.raises(ChannelError, match=r"slow\.tokens_per_forward"):
        PassSize(1, 1000).fit(passes, lambda: None)
