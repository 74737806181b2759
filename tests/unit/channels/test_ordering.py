"""Orders of demonstrations, with values by hand."""

import pytest

from fastslow.channels.fast.demo_order import (
    UNKNOWN_RATE,
    as_found,
    by_pass_rate,
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


def test_pass_rates_order_both_ways_and_ties_keep_the_order_of_the_search() -> None:
    rates = {"france": 1.0, "peru": 0.0, "chad": 1.0}
    easy, hard = (by_pass_rate(rates, hardest_first=h) for h in (False, True))
    assert 0 < UNKNOWN_RATE < 1
    assert words(easy(SHOWN)) == ["france", "chad", "fiji", "peru"]
    assert words(hard(SHOWN)) == ["peru", "fiji", "france", "chad"]


def test_measuring_difficulty_is_part_of_the_budget() -> None:
    def run(order: str, metric_calls: int) -> RunConfig:
        fast = {"metric_calls": metric_calls, "demonstration_order": order}
        return RunConfig(
            name="x", stages=(StageConfig(task="t"),), fast=DemosConfig.model_validate(fast)
        )

    run("similar", 240)
    with pytest.raises(ValueError, match=r"fewer than 2 new prompts. Use at least 272"):
        run("easy_first", 240)
    run("hard_first", 272)
