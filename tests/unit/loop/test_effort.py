"""The work a run has before it, counted part by part as the loop works it off."""

from typing import Any

from fastslow.config.ledger import DRIFT_UNITS, GEOMETRY_UNITS, NEUTRAL_UNITS, PROXIES_UNITS
from fastslow.config.models import RunConfig
from fastslow.loop.effort import Effort
from fastslow.records.state import RunState
from tests.support.toy_tasks import letters

STAGES = [{"task": "a", "cycles": 2}, {"task": "b", "cycles": 1}]


def effort(**keys: Any) -> Effort:
    config = RunConfig.model_validate({"name": "r", "stages": STAGES, **keys})
    return Effort(config, {name: letters.build(name) for name in config.task_names})


def test_a_row_counts_what_is_measured_for_it_and_no_more() -> None:
    found = effort()
    assert found.part(0, "matrix") == found.part(1, "matrix") == 2 * 10
    assert found.part(0, "drift") == found.part(0, "channel_split") == 0
    assert found.part(0, "neutral") == NEUTRAL_UNITS
    assert found.part(2, "drift") == DRIFT_UNITS * (2 * 2 + 1) * 8
    off = {"neutral": False, "proxies": False, "geometry": False, "channel_split": False}
    bare = effort(evaluation={**off, "kl_examples": 0, "curve_examples": 0})
    assert bare.part(1, "matrix") == 20
    assert not any(
        bare.part(row, part)
        for row in (0, 1, 2)
        for part in ("neutral", "proxies", "geometry", "channel_split", "drift", "reoptimize")
    )


def test_what_is_left_shrinks_by_what_was_done() -> None:
    found = effort(
        tasks={"c": {}}, probe={"task": "c", "updates": 4, "score_every": 2}, slow={"kind": "sft"}
    )
    whole = found.remaining(RunState())
    row_0 = 20 + NEUTRAL_UNITS + PROXIES_UNITS
    assert whole - found.remaining(RunState(base_done=True)) == row_0
    cycle = found.channel("fast") + found.channel("slow")
    after_one = found.remaining(RunState(base_done=True, next_cycle=1))
    assert whole - row_0 - after_one == cycle + found.part(1, "curves")
    over = found.remaining(RunState(base_done=True, next_stage=2))
    assert over == 2 * found.curve(found.config.probe) == 2 * (3 * 32 + 4 * 8 * 2)  # type: ignore[arg-type]  # it has one
    one = found.part(1, "matrix") + GEOMETRY_UNITS + found.part(1, "drift")
    assert found.remaining(RunState(base_done=True, next_stage=1)) < after_one - one
