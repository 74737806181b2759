"""Named random streams are stable, independent and well formed."""

from hypothesis import given, settings
from hypothesis import strategies as st

from fastslow.core.seeds import derive_seed, named_random

few = settings(max_examples=25, deadline=None)

NAMES = st.lists(st.text() | st.integers(), max_size=4)


@few
@given(st.integers(min_value=0), NAMES)
def test_seeds_fit_63_bits_and_repeat(root: int, names: list[str | int]) -> None:
    seed = derive_seed(root, *names)
    assert 0 <= seed < 2**63
    assert derive_seed(root, *names) == seed


@few
@given(st.integers(min_value=0), NAMES, st.integers(min_value=0), NAMES)
def test_different_streams_have_different_seeds(
    root: int, names: list[str | int], other_root: int, other_names: list[str | int]
) -> None:
    same = (root, names) == (other_root, other_names)
    assert (derive_seed(root, *names) == derive_seed(other_root, *other_names)) == same


def test_a_name_and_the_number_it_spells_are_different_streams() -> None:
    assert derive_seed(0, "1") != derive_seed(0, 1)
    assert derive_seed(0, "ab") != derive_seed(0, "a", "b")


def test_the_value_of_a_stream_never_changes() -> None:
    assert derive_seed(7, "slow", 0, 1) == 6385089094721479042
    assert named_random(7, "slow").random() == named_random(7, "slow").random()


def test_drawing_from_one_stream_leaves_another_as_it_was() -> None:
    first, second = named_random(0, "a"), named_random(0, "b")
    expected = named_random(0, "b").random()
    first.random()
    assert second.random() == expected
