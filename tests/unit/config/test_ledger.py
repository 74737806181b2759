"""The work a run has before it, counted part by part as the loop works it off."""

from typing import Any

import pytest

from fastslow.config.cost import REFERENCE
from fastslow.config.ledger import (
    DRIFT_UNITS,
    NEUTRAL_UNITS,
    Ledger,
)
from fastslow.config.models import RunConfig
from fastslow.config.price import Price
from tests.support.toy_tasks import letters

STAGES = [{"task": "a", "cycles": 2}, {"task": "b", "cycles": 1}]


def ledger(**keys: Any) -> Ledger:
    config = RunConfig.model_validate({"name": "r", "stages": STAGES, **keys})
    return Ledger(config, {name: letters.build(name) for name in config.task_names})


def work(account: Ledger, part: str, row: int) -> int:
    entry = account.entry(part, row)
    return entry.rollouts + entry.extra


def test_a_row_counts_what_is_measured_for_it_and_no_more() -> None:
    account = ledger()
    assert work(account, "matrix", 0) == work(account, "matrix", 1) == 2 * 10
    assert work(account, "drift", 0) == work(account, "channel_split", 0) == 0
    assert work(account, "neutral", 0) == NEUTRAL_UNITS
    assert work(account, "drift", 2) == DRIFT_UNITS * (2 * 2 + 1) * 8
    off = {"neutral": False, "proxies": False, "geometry": False, "channel_split": False}
    bare = ledger(evaluation={**off, "kl_examples": 0, "curve_examples": 0})
    assert work(bare, "matrix", 1) == 20
    assert not any(
        work(bare, part, row)
        for row in (0, 1, 2)
        for part in ("neutral", "proxies", "geometry", "channel_split", "drift", "reoptimize")
    )


def test_no_more_is_drawn_of_a_task_than_its_test_split_has() -> None:
    account = ledger(evaluation={"test_examples": 64, "curve_examples": 16})
    assert account.cell("a") == work(account, "curves", 1) == 10
    assert work(ledger(evaluation={"test_examples": 4}), "curves", 1) == 4


def test_what_remains_shrinks_by_what_was_done() -> None:
    account = ledger(slow={"kind": "sft"})

    def done(*places: tuple[bool, int, int]) -> list[tuple[str, int]]:
        before, after = (account.remaining(*place) for place in places)
        assert before[len(before) - len(after) :] == after
        return [(e.part, e.row) for e in before[: len(before) - len(after)]]

    assert account.remaining(False, 0, 0) == account.entries
    first = done((False, 0, 0), (True, 0, 0))
    assert first == [("matrix", 0), ("neutral", 0), ("proxies", 0)]
    assert done((True, 0, 0), (True, 0, 1)) == [("fast", 1), ("slow", 1), ("curves", 1)]
    stage = done((True, 0, 1), (True, 1, 0))
    assert stage[:5] == [("fast", 1), ("slow", 1), ("choice", 1), ("shrink", 1), ("remedies", 1)]
    assert {row for _, row in stage} == {1}
    assert account.remaining(True, 2, 0) == []


def test_seconds_that_remain_at_the_end_are_those_of_the_probe() -> None:
    account = ledger(
        tasks={"c": {}}, probe={"task": "c", "updates": 4, "score_every": 2}, slow={"kind": "sft"}
    )
    price, probe = Price(account, {}, REFERENCE), account.config.probe
    assert probe is not None
    assert account.curve(probe).rollouts == 3 * 32
    at_the_end = price.remaining_s(True, 2, 0)
    assert at_the_end == 2 * probe.seeds * price.curve_s(probe) > 0
    entries_s = sum(map(price.seconds, account.entries))
    assert price.remaining_s(False, 0, 0) == pytest.approx(at_the_end + entries_s)


def test_routers_cost_what_is_sent_elsewhere_and_passes_over_questions() -> None:
    """Test samples of 10; c is not visited, so nothing of it is routed."""
    stages = [*STAGES, {"task": "d"}, {"task": "a"}]

    def entries(*routers: str) -> list[tuple[int, int]]:
        slow = {"adapter_policy": "new-per-stage"}
        account = ledger(stages=stages, tasks={"c": {}}, slow=slow, evaluation={"routers": routers})
        parts = [entry for entry in account.entries if entry.part == "router"]
        assert [entry.row for entry in parts] == [1, 2, 3, 4]
        return [(entry.rollouts, entry.extra) for entry in parts]

    # a's inputs under b and b's under a; then 20 under the latest and where else they are sent,
    # d's own 10 where they are sent; means of 32 training questions of a and b, then of d
    assert entries("nearest_mean") == [
        (0, 0),
        (10 + 10, 20 + 2 * 32),
        (20 * 2 + 10, 30 + 32),
        (20 * 2 + 10, 30),
    ]
    assert entries("surprisal") == [(0, 0), (20, 20 * 2), (50, 30 * 3), (50, 30 * 3)]
    both = [(0, 0), (20, 20 + 64 + 40), (20 * 2 + 10 * 2, 62 + 90), (60, 30 + 90)]
    assert entries("nearest_mean", "surprisal", "surprisal") == both
    assert entries() == [(0, 0)] * 4
