"""Bands by a signal: the fifths of its values on the problems of a stage."""

import math
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from fastslow.channels.slow.difficulty import DifficultyGate, Group
from fastslow.channels.slow.group_settings import BANDS, DifficultyConfig
from fastslow.channels.slow.signal_bands import SignalBands
from fastslow.core.errors import ChannelError


def group(problem: str, *rewards: float) -> Group:
    return Group("t", problem, rewards, tuple((i, 1, 2) for i in range(len(rewards))))


def bands_of(*values: float) -> SignalBands:
    """Bands whose problems are called by their places."""
    bands = SignalBands("slow.difficulty.signal", lambda reading: reading.first_entropy)
    bands.values = {"t": {str(place): value for place, value in enumerate(values)}}
    return bands


def test_a_fifth_of_the_problems_is_in_each_band_and_the_highest_values_are_unsolved() -> None:
    values = [0.3, -1.0, 7.0, 2.0, 0.1, 5.0, 0.2, 3.0, 4.0, 6.0]
    bands = bands_of(*values)
    of_place = [bands.observe(group(str(place), 0, 1), 0.5) for place in range(10)]
    assert Counter(of_place) == dict.fromkeys(BANDS, 2)
    by_value = [band for _, band in sorted(zip(values, of_place, strict=True), reverse=True)]
    assert by_value == [band for band in BANDS for _ in range(2)]
    assert [place for place in range(10) if bands.is_hardest(group(str(place), 1))] == [2, 9]


def test_equal_values_are_in_one_band_that_of_the_middle_of_their_ranks() -> None:
    assert {bands_of(3, 3, 3).band(group(str(i), 0), 0.0) for i in range(3)} == {"medium"}
    of_place = [bands_of(1, 1, 1, 9, 9).band(group(str(i), 0), 0.0) for i in range(5)]
    assert of_place == ["easy"] * 3 + ["unsolved"] * 2


def test_problems_of_several_tasks_share_their_fifths() -> None:
    bands = bands_of(1, 2)
    bands.values = {**bands.values, "u": {"0": 3.0, "1": 4.0, "2": 5.0}}
    assert bands.band(Group("u", "2", (0.0,), ()), 0.0) == "unsolved"
    assert bands.band(group("0", 0), 0.0) == "solved"


def test_the_gate_drops_problems_of_other_bands_whatever_was_drawn() -> None:
    settings = DifficultyConfig(train_bands=("unsolved", "hard"))
    gate = DifficultyGate(settings, bands_of(5, 4, 3, 2, 1))
    verdict = gate.judge([group("0", 1, 1, 1, 0), group("1", 0, 0, 0, 1), group("4", 0, 0, 0, 1)])
    assert verdict.trained == (True, True, False)
    shares = {band: verdict.metrics[f"band_{band}_frac"] for band in BANDS}
    expected = {"unsolved": 1 / 3, "hard": 1 / 3, "medium": 0, "easy": 0, "solved": 1 / 3}
    assert shares == pytest.approx(expected)
    hinted = {2: group("4", 1, 0, 1, 0)}
    assert gate.judge([group("0", 0, 0), group("1", 0, 1), group("4", 0, 0)], hinted).trained == (
        False,  # equal rewards
        True,
        False,  # a hint makes no other problem of it
    )


@pytest.mark.parametrize("value", [None, math.nan, math.inf])
def test_a_problem_without_a_number_is_named(value: float | None) -> None:
    bands = SignalBands("slow.guidance.signal", lambda reading: value)
    reading: Any = SimpleNamespace(example="train-3")
    with pytest.raises(
        ChannelError, match=r"^slow\.guidance\.signal: .*'train-3' is (None|nan|inf)"
    ):
        bands.value(reading)
