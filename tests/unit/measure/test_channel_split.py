import pytest

from fastslow.measure.scores.channel_split import SPLITS, CellName, channel_split, split_difference


def test_a_text_that_never_changed_gives_a_reason_in_place_of_a_zero() -> None:
    cells: dict[CellName, float | None] = {"learned_own": 0.8, "final_own": 0.5}
    measured = channel_split(cells, same_text=True)
    assert measured["tf"].value == pytest.approx(0.3)
    assert measured["wf"].value == measured["tf"].value == measured["wf_s"].value
    for name in ("pf", "pf_s", "ix"):
        assert measured[name].value is None
        assert "still the one it was learned with" in str(measured[name].reason)


def test_a_missing_cell_is_named_and_spoils_only_the_figures_that_need_it() -> None:
    cells: dict[CellName, float | None] = {
        "base_seed": 0.1,
        "learned_seed": 0.4,
        "learned_own": 0.8,
        "final_live": None,
    }
    measured = channel_split(cells, same_text=False)
    assert measured["gain_slow"].value == pytest.approx(0.3)
    assert measured["gain_joint"].value == pytest.approx(0.7)
    assert measured["tf"].reason == "not measured: final_live"
    assert measured["gain_fast"].reason == "not measured: base_own"
    assert measured["rec"].reason == "not measured: the text was not optimised again"
    assert set(measured) == set(SPLITS)


def test_what_is_recoverable_says_what_it_cost_to_find() -> None:
    cells: dict[CellName, float | None] = {"final_live": 0.5, "final_reopt": 0.6}
    recovered = channel_split(cells, same_text=False, budget=96)["rec"]
    assert recovered.value == pytest.approx(0.1)
    assert recovered.formula.endswith("p* found in 96 rollouts")


def test_figures_over_examples_have_paired_intervals_around_the_figure_of_the_means() -> None:
    examples: dict[CellName, list[float]] = {
        "learned_own": [1.0, 1.0, 1.0, 0.0, 1.0],
        "final_own": [1.0, 0.0, 1.0, 0.0, 0.0],
        "learned_live": [1.0, 1.0, 0.0, 1.0, 1.0],
        "final_live": [0.0, 0.0, 0.0, 1.0, 0.0],
    }
    means: dict[CellName, float | None] = {c: sum(s) / len(s) for c, s in examples.items()}
    split_of = channel_split(means, same_text=False)
    for name in ("tf", "wf", "pf", "ix", "wf_s", "pf_s"):
        split = split_difference(name, examples, same_text=False)
        assert split.n == 5
        assert split.mean == pytest.approx(split_of[name].value)
        if split.low is not None and split.high is not None:
            assert split.low <= split.mean <= split.high
    with pytest.raises(KeyError, match="learned_seed"):
        split_difference("gain_slow", examples, same_text=False)
