"""Whole runs with every remedy and every kind of distillation, cut in the second stage."""

import json
from pathlib import Path

import pytest

from fastslow.channels.slow.remedies.shipped import SHIPPED_REMEDIES
from fastslow.loop import launch
from fastslow.records.events import RemedyEvent
from fastslow.records.jsonl import read_events
from tests.support.runs import no_report, outcome, whole_and_cut

PARITY = (
    "stages=[{task: first, cycles: 2}, {task: third, cycles: 2}]",
    "tasks.first={use: 'tests.support.toy_tasks:parity'}",
    "tasks.third={use: 'tests.support.toy_tasks:parity'}",
    *(f"evaluation.{part}=false" for part in ("channel_split", "neutral", "proxies")),
)
"""Two stages of two cycles, on tasks of which the tiny model gets some right; little measured."""
FRESH, APART = "slow.adapter_policy=merge-then-new", "slow.adapter_policy=new-per-stage"
REMEDIES = {
    "replay, start": ("{kind: replay, target: start, rows: 4, keep: 8}",),
    "l2": ("{kind: l2}",),
    "movement": ("{kind: movement}",),
    "kl_start": ("{kind: kl_start}",),
    "orthogonal": ("{kind: orthogonal}", FRESH),
    "orthogonal, penalty": ("{kind: orthogonal, form: penalty}", FRESH),
    "core_rows": ("{kind: core_rows, share: 0.2}", FRESH),
    "renew, recycle": ("{kind: renew}",),
    "renew, shrink_perturb": ("{kind: renew, action: shrink_perturb}",),
    "renew, l2_init": ("{kind: renew, action: l2_init}",),
    "interpolate": ("{kind: interpolate}", FRESH),
    "merge": ("{kind: merge}", APART),
    "merge, task_arithmetic": ("{kind: merge, how: task_arithmetic}", APART),
    "merge, slerp": ("{kind: merge, how: slerp}", APART),
    "merge, ties": ("{kind: merge, how: ties}", APART),
    "merge, dare": ("{kind: merge, how: dare, density: 0.5, rank: 2}", APART),
    "consolidate": ("{kind: consolidate, updates: 2, problems: 2, group: 2, lr: 0.01}",),
}
"""A remedy and what else it needs; replay and ewc are in test_remedies.py."""
CHANNELS = {
    "kl_budget_earlier": ("slow.kl_budget_earlier=1e-6",),
    "distill": ("slow={kind: distill, group: 4, lora: {rank: 2, alpha: 4}}",),
    "distill, ema": (
        "slow={kind: distill, group: 4, teacher_weights: ema, lora: {rank: 2, alpha: 4}}",
    ),
    "distill, success": (
        "slow={kind: distill, group: 4, teacher: success, student: with_text, "
        "lora: {rank: 2, alpha: 4}}",
    ),
    "distill, answer": (
        "slow={kind: distill, group: 4, teacher: answer, divergence: forward, draw_from: teacher, "
        "teacher_weights: present, only_where_better: true, lora: {rank: 2, alpha: 4}}",
    ),
}


def test_no_shipped_remedy_is_left_out() -> None:
    kinds = {name.partition(",")[0] for name in REMEDIES}
    assert kinds | {"ewc"} == set(SHIPPED_REMEDIES)


def cases() -> dict[str, tuple[str, ...]]:
    remedies = {
        name: (f"slow.remedies=[{remedy}]", *others) for name, (remedy, *others) in REMEDIES.items()
    }
    return remedies | CHANNELS


@pytest.mark.parametrize("name", cases())
def test_resuming_in_the_second_stage_equals_never_stopping(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    overrides = [f"model.name={tiny_folder}", *PARITY, *cases()[name]]
    undisturbed, broken = whole_and_cut(4, tmp_path, overrides, monkeypatch)
    assert not list(broken.glob("stages/001-*"))
    assert outcome(launch.resume(broken, no_report)) == outcome(undisturbed)
    state = json.loads((undisturbed / "run.json").read_text())["state"]
    assert state == "finished"
    events = [e for e in read_events(undisturbed / "events.jsonl") if isinstance(e, RemedyEvent)]
    if not name.startswith("distill"):
        assert [e.stage for e in events] == [0, 1]
