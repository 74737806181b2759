"""Orders of demonstrations, with values by hand."""

import pytest

from fastslow.channels.fast.demo_order import (
    as_found,
    by_difficulty,
    by_similarity,
    ngrams,
    overlap,
)
from fastslow.channels.fast.settings import DemosConfig
from fastslow.config.models import RunConfig, StageConfig
from fastslow.core.prompts import Demonstration

SHOWN = tuple(Demonstration(word, word.upper()) for word in ("france", "chad", "peru", "fiji"))


def words(demonstrations: tuple[Demonstration, ...]) -> list[str]:
    return [demonstration.question for demonstration in demonstrations]


def test_random_is_the_order_of_the_search() -> None:
    assert as_found(list(SHOWN)) == SHOWN


def test_overlap_is_shared_trigrams_over_all_trigrams() -> None:
    assert ngrams("Peru") == {" pe", "per", "eru", "ru "}
    assert overlap(ngrams("peru"), ngrams("per")) == 2 / 5
    assert overlap(ngrams("peru"), ngrams("PERU")) == 1
    assert overlap(ngrams("a"), ngrams("")) == 0


def test_similar_puts_what_is_most_like_the_problems_last() -> None:
    order = by_similarity(["francs", "fran", "fijian"])
    assert words(order(SHOWN)) == ["chad", "peru", "fiji", "france"]


def test_difficulty_orders_both_ways_and_ties_keep_the_order_of_the_search() -> None:
    values = {"france": 0.0, "peru": 1.0, "chad": 0.0, "fiji": 0.5}
    easy, hard = (by_difficulty(values, hardest_first=h) for h in (False, True))
    assert words(easy(SHOWN)) == ["france", "chad", "fiji", "peru"]
    assert words(hard(SHOWN)) == ["peru", "fiji", "france", "chad"]


@pytest.mark.parametrize("values", [{"france": -9.0, "chad": -1.0, "peru": 3.0}, {}])
def test_what_was_not_measured_stands_in_the_middle(values: dict[str, float | None]) -> None:
    """By the median, wherever on its own scale a signal lies; nothing measured changes nothing."""
    order = by_difficulty({**values, "fiji": None}, hardest_first=False)
    expected = ["france", "chad", "fiji", "peru"] if values else words(SHOWN)
    assert words(order(SHOWN)) == expected


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"demonstration_order": "signal_easy_first"},
            "got demonstration_order signal_easy_first. Name both",
        ),
        ({"demonstration_signal": {"kind": "l0"}}, "got demonstration_order random. Name both"),
    ],
)
def test_an_order_by_a_signal_names_it_and_no_other_order_does(
    keys: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        DemosConfig.model_validate(keys)


def test_measuring_difficulty_is_part_of_the_budget() -> None:
    def run(order: str, metric_calls: int) -> RunConfig:
        fast = {"metric_calls": metric_calls, "demonstration_order": order}
        if order.startswith("signal"):
            fast["demonstration_signal"] = {"kind": "l0", "trusted": True}
        return RunConfig(
            name="x", stages=(StageConfig(task="t"),), fast=DemosConfig.model_validate(fast)
        )

    run("similar", 240)
    run("signal_hard_first", 240)
    with pytest.raises(ValueError, match=r"fewer than 2 new prompts. Use at least 272"):
        run("easy_first", 240)
    run("hard_first", 272)
