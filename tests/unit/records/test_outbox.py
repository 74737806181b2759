"""What waits for a tracker: in order, once, over processes, and after damage."""

import json
from pathlib import Path

import pytest

from fastslow.records.tracking.outbox import Message, Outbox


def made(folder: Path) -> Outbox:
    outbox = Outbox(folder / "tracking.jsonl", folder / "tracker.json")
    outbox.open()
    return outbox


def metric(step: int, value: float, time: int = 0) -> Message:
    return {"kind": "metrics", "key": "run", "step": step, "metrics": {"a": value}, "time": time}


def taken(outbox: Outbox, most: int = 9) -> list[object]:
    """Deliver up to so many."""
    steps: list[object] = []
    for message in outbox.pending():
        if len(steps) == most:
            break
        steps.append(message.get("step"))
        outbox.mark()
    return steps


def test_what_was_not_delivered_waits_for_the_next_process_in_order(tmp_path: Path) -> None:
    first = made(tmp_path)
    for step in range(4):
        first.add(metric(step, 0.5))
    assert taken(first, most=2) == [0, 1]
    again = made(tmp_path)
    assert again.num_pending == 2
    assert taken(again) == [2, 3]
    assert made(tmp_path).num_pending == 0


def test_the_same_is_not_said_twice_but_another_value_is_new(tmp_path: Path) -> None:
    first = made(tmp_path)
    first.add(metric(1, 0.5, time=10))
    again = made(tmp_path)
    again.add(metric(1, 0.5, time=20))
    again.add(metric(1, 0.6, time=20))
    again.add({"kind": "end", "key": "run", "status": "FAILED"})
    again.add({"kind": "end", "key": "run", "status": "FAILED"})
    lines = [json.loads(line) for line in (tmp_path / "tracking.jsonl").read_text().splitlines()]
    assert [(line["kind"], line.get("time")) for line in lines] == [
        ("metrics", 10),
        ("metrics", 20),
        ("end", None),
        ("end", None),
    ]


def test_a_line_that_a_crash_left_unfinished_is_cut_off(tmp_path: Path) -> None:
    made(tmp_path).add(metric(1, 0.5))
    with (tmp_path / "tracking.jsonl").open("a") as file:
        file.write('{"kind": "met')
    again = made(tmp_path)
    again.add(metric(2, 0.5))
    assert taken(again) == [1, 2]


def test_damage_costs_what_is_damaged_and_no_more(tmp_path: Path) -> None:
    first = made(tmp_path)
    for step in range(3):
        first.add(metric(step, 0.5))
    assert taken(first) == [0, 1, 2]
    lines = (tmp_path / "tracking.jsonl").read_text().splitlines()
    (tmp_path / "tracking.jsonl").write_text("\n".join([lines[0], "{", lines[2]]) + "\n")
    again = Outbox(tmp_path / "tracking.jsonl", tmp_path / "tracker.json")
    with pytest.raises(ValueError, match=r"tracking\.jsonl is damaged"):
        again.open()
    again.add(metric(7, 0.5))
    assert taken(again) == [7]
