"""The work a run has before it, counted part by part as the loop works it off."""

from typing import Any

from fastslow.config.ledger import (
    DRIFT_UNITS,
    GEOMETRY_UNITS,
    NEUTRAL_UNITS,
    PROXIES_UNITS,
    Ledger,
)
from fastslow.config.models import RunConfig
from tests.support.toy_tasks import letters

STAGES = [{"task": "a", "cycles": 2}, {"task": "b", "cycles": 1}]


def ledger(**keys: Any) -> Ledger:
    config = RunConfig.model_validate({"name": "r", "stages": STAGES, **keys})
    return Ledger(config, {name: letters.build(name) for name in config.task_names})


def test_a_row_counts_what_is_measured_for_it_and_no_more() -> None:
    account = ledger()
    assert account.units("matrix", 0) == account.units("matrix", 1) == 2 * 10
    assert account.units("drift", 0) == account.units("channel_split", 0) == 0
    assert account.units("neutral", 0) == NEUTRAL_UNITS
    assert account.units("drift", 2) == DRIFT_UNITS * (2 * 2 + 1) * 8
    off = {"neutral": False, "proxies": False, "geometry": False, "channel_split": False}
    bare = ledger(evaluation={**off, "kl_examples": 0, "curve_examples": 0})
    assert bare.units("matrix", 1) == 20
    assert not any(
        bare.units(part, row)
        for row in (0, 1, 2)
        for part in ("neutral", "proxies", "geometry", "channel_split", "drift", "reoptimize")
    )


def test_no_more_is_drawn_of_a_task_than_its_test_split_has() -> None:
    account = ledger(evaluation={"test_examples": 64, "curve_examples": 16})
    assert account.cell("a") == account.units("curves", 1) == 10
    assert ledger(evaluation={"test_examples": 4}).units("curves", 1) == 4


def test_what_remains_shrinks_by_what_was_done() -> None:
    account = ledger(
        tasks={"c": {}}, probe={"task": "c", "updates": 4, "score_every": 2}, slow={"kind": "sft"}
    )
    start = account.remaining(False, 0, 0)
    row_0 = 20 + NEUTRAL_UNITS + PROXIES_UNITS
    assert start - account.remaining(True, 0, 0) == row_0
    cycle = account.units("fast") + account.units("slow")
    after_one = account.remaining(True, 0, 1)
    assert start - row_0 - after_one == cycle + account.units("curves", 1)
    probe = account.config.probe
    assert probe is not None
    at_the_end = account.remaining(True, 2, 0)
    assert at_the_end == 2 * account.curve(probe).units == 2 * (3 * 32 + 4 * 8 * 2)
    row = account.units("matrix", 1) + GEOMETRY_UNITS + account.units("drift", 1)
    assert account.remaining(True, 1, 0) < after_one - row


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
