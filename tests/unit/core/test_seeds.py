"""Named random streams are stable, independent and well formed."""

import base64
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastslow.core.seeds import (
    derive_seed,
    load_generators,
    named_random,
    save_generators,
    seed_generators,
    seeded,
)

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


class Card:
    """Stands for the cards of a machine, of which this process has the second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.states = [torch.full((4,), card, dtype=torch.uint8) for card in range(3)]
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: self.states[1].clone())
        monkeypatch.setattr(torch.cuda, "set_rng_state", self.set)
        for every in ("get_rng_state_all", "set_rng_state_all"):
            monkeypatch.delattr(torch.cuda, every)

    def set(self, state: torch.Tensor) -> None:
        self.states[1] = state


def test_only_the_process_s_own_card_is_saved_and_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card(monkeypatch)
    save_generators(tmp_path)
    [saved] = json.loads((tmp_path / "random.json").read_text())
    assert len(saved["cuda"]) == 1
    card.states = [torch.full((4,), 9, dtype=torch.uint8) for _ in range(3)]
    load_generators(tmp_path)
    assert [int(state[0]) for state in card.states] == [9, 1, 9]

    # a folder of an earlier version has all cards, and the first process alone
    saved["cuda"] = [base64.b64encode(bytes([7 + n] * 4)).decode() for n in range(3)]
    (tmp_path / "random.json").write_text(json.dumps(saved))
    load_generators(tmp_path)
    assert [int(state[0]) for state in card.states] == [9, 8, 9]


def test_every_process_takes_back_its_own_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    for seed in (1, 2):
        seed_generators(seed)
        save_generators(tmp_path)
        states += json.loads((tmp_path / "random.json").read_text())
    (tmp_path / "random.json").write_text(json.dumps(states))
    draws = []
    for rank in ("0", "1", "2"):  # the third was not there when the states were saved
        monkeypatch.setenv("RANK", rank)
        load_generators(tmp_path)
        draws.append((float(torch.rand(())), random.random(), float(np.random.rand())))
    seed_generators(2)
    assert draws[1] == (float(torch.rand(())), random.random(), float(np.random.rand()))
    assert draws[0] == draws[2] != draws[1]


def test_seeded_draws_leave_no_trace() -> None:
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first = torch.rand(1)
    with seeded(3):
        within = torch.rand(4)
    assert torch.equal(torch.cat([first, torch.rand(1)]), expected)
    with seeded(3):
        assert torch.equal(torch.rand(4), within)
