"""The prompt population: identity, order, slots and its JSON form, for any texts and scores."""

import json
from collections import Counter
from dataclasses import asdict
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastslow.core.decode import shaped
from fastslow.core.prompts import (
    Candidate,
    Demonstration,
    Lineage,
    PromptProgram,
    assign_slots,
    best_by_mean,
    coverage,
    dominates,
    pareto_front,
    select,
)

few = settings(max_examples=25, deadline=None)

SCORES = st.sampled_from([0.0, 0.25, 0.5, 1.0])
TEXTS = st.text(max_size=8)
LINEAGES = st.builds(
    Lineage,
    optimizer=TEXTS,
    parent=st.none() | TEXTS,
    stage=st.none() | st.integers(0, 9),
    cycle=st.none() | st.integers(0, 9),
    weights=st.none() | TEXTS,
)
PROGRAMS = st.builds(
    PromptProgram,
    instruction=TEXTS,
    demonstrations=st.lists(st.builds(Demonstration, TEXTS, TEXTS), max_size=3).map(tuple),
    lineage=LINEAGES,
)


@st.composite
def candidates(draw: st.DrawFn, min_size: int = 1) -> list[Candidate]:
    """Candidates with distinct texts, all scored on the same examples."""
    programs = draw(
        st.lists(PROGRAMS, min_size=min_size, max_size=6, unique_by=lambda p: p.text_hash)
    )
    keys = [f"e{i}" for i in range(draw(st.integers(1, 4)))]
    return [Candidate(program, {key: draw(SCORES) for key in keys}) for program in programs]


def candidate(instruction: str, *scores: float) -> Candidate:
    return Candidate(PromptProgram(instruction), {f"e{i}": score for i, score in enumerate(scores)})


def names(population: tuple[Candidate, ...]) -> list[str]:
    return [c.program.instruction for c in population]


@few
@given(candidates())
def test_no_candidate_dominates_itself_and_no_two_dominate_each_other(
    pool: list[Candidate],
) -> None:
    for a in pool:
        assert not dominates(a, a)
        for b in pool:
            assert not (dominates(a, b) and dominates(b, a))


@few
@given(candidates())
def test_the_front_is_what_nobody_dominates_and_covers_everybody_else(
    pool: list[Candidate],
) -> None:
    front = pareto_front(pool)
    assert front
    for c in pool:
        dominated = any(dominates(other, c) for other in pool)
        assert (c in front) != dominated
        if dominated:
            assert any(dominates(best, c) for best in front)


@few
@given(candidates())
def test_the_best_mean_is_on_the_front(pool: list[Candidate]) -> None:
    assert best_by_mean(pool) in pareto_front(pool)


@few
@given(candidates(), st.integers(1, 8))
def test_selection_keeps_the_front_before_anyone_else(pool: list[Candidate], size: int) -> None:
    kept = select(pool, size)
    assert len(kept) == min(size, len(pool))
    front = pareto_front(pool)
    on_front = [c in front for c in kept]
    assert on_front == sorted(on_front, reverse=True)
    assert sum(on_front) == min(size, len(front))


@few
@given(candidates(), st.integers(1, 8), st.randoms(use_true_random=False))
def test_selection_does_not_depend_on_the_order_given(
    pool: list[Candidate], size: int, random: Random
) -> None:
    shuffled = list(pool)
    random.shuffle(shuffled)
    assert select(shuffled, size) == select(pool, size)


@few
@given(candidates(), st.integers(1, 8))
def test_a_text_given_twice_counts_once(pool: list[Candidate], size: int) -> None:
    assert select([*pool, *pool], size) == select(pool, size)


def test_selecting_from_nothing_says_so() -> None:
    with pytest.raises(ValueError, match=r"^select: no candidates"):
        select([], 2)


def test_rank_is_front_then_coverage_then_mean_then_length() -> None:
    broad = candidate("broad", 0.5, 0.5, 0.5, 0.0)
    single = candidate("single", 0.0, 0.0, 0.0, 1.0)
    behind = candidate("behind", 0.5, 0.5, 0.0, 0.0)
    assert names(select([behind, single, broad], 3)) == ["broad", "single", "behind"]
    assert names(select([candidate("longer", 1.0), candidate("short", 1.0)], 1)) == ["short"]


def test_an_example_nobody_solves_covers_no_one() -> None:
    pool = [candidate("a", 0.0, 0.5), candidate("b", 0.0, 0.25)]
    assert [coverage(c, pool) for c in pool] == [1, 0]


def test_an_unscored_candidate_has_mean_zero() -> None:
    assert candidate("a").mean == 0.0


@few
@given(candidates(), st.integers(1, 5))
def test_slots_are_shared_evenly_and_the_better_rank_gets_the_rest(
    pool: list[Candidate], share: int
) -> None:
    population = tuple(pool)
    for group in (share * len(pool), share * len(pool) + len(pool) - 1):
        slots = assign_slots(population, group)
        assert len(slots) == group
        counts = Counter(program.text_hash for program in slots)
        per_rank = [counts[c.program.text_hash] for c in population]
        assert per_rank == sorted(per_rank, reverse=True)
        assert max(per_rank) - min(per_rank) <= 1
        ranks = [[c.program.text_hash for c in population].index(p.text_hash) for p in slots]
        assert ranks == sorted(ranks)


@few
@given(PROGRAMS)
def test_a_program_survives_json_with_its_lineage_and_hash(program: PromptProgram) -> None:
    again = shaped(PromptProgram, json.loads(json.dumps(asdict(program))))
    assert again == program
    assert again.lineage == program.lineage
    assert again.text_hash == program.text_hash


@few
@given(candidates())
def test_candidates_survive_json(pool: list[Candidate]) -> None:
    assert [shaped(Candidate, json.loads(json.dumps(asdict(c)))) for c in pool] == pool


@few
@given(PROGRAMS, PROGRAMS)
def test_programs_are_equal_exactly_when_their_hashes_are(
    a: PromptProgram, b: PromptProgram
) -> None:
    assert (a == b) == (a.text_hash == b.text_hash)


def test_text_cannot_move_between_fields_without_changing_the_hash() -> None:
    split = [PromptProgram("ab"), PromptProgram("a", (Demonstration("b", ""),))]
    split += [PromptProgram("a", (Demonstration("", "b"),)), PromptProgram("", ())]
    assert len({program.text_hash for program in split}) == 4


def test_the_length_of_a_program_counts_all_its_texts() -> None:
    assert PromptProgram("abc", (Demonstration("de", "f"),)).num_chars == 6
