"""A stage with a learning rate of its own: used there alone, and after a resume too."""

from pathlib import Path

import pytest

from fastslow.loop import launch
from fastslow.records.events import StepEvent
from fastslow.records.jsonl import read_events
from tests.support.runs import cut_after_slow_phase, no_report, outcome, start

STAGES = "stages=[{task: first, cycles: 2, lr: 0.05}, {task: second, cycles: 1}]"


def test_a_stage_trains_at_its_own_learning_rate_and_goes_on_so_when_resumed(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    for name in ("whole", "cut"):
        overrides = [f"model.name={tiny_folder}", STAGES, "slow={kind: sft, lr: 0.02}"]
        if name == "whole":
            runs.append(start(tmp_path / name, overrides))
        else:
            broken = cut_after_slow_phase(2, tmp_path / name, overrides, monkeypatch)
            runs.append(launch.resume(broken, no_report))
    for run in runs:
        steps = [e for e in read_events(run / "metrics.jsonl") if isinstance(e, StepEvent)]
        rates = [(e.stage, e.metrics["slow/lr"]) for e in steps]
        rising = [(0, 0.05 / 3), (0, 0.05 * 2 / 3), (0, 0.05), (0, 0.05)]
        expected = [*rising, (1, 0.02 / 3), (1, 0.02 * 2 / 3)]  # two updates of warm-up each
        assert [stage for stage, _ in rates] == [stage for stage, _ in expected]
        assert [lr for _, lr in rates] == pytest.approx([lr for _, lr in expected])
    whole, resumed = map(outcome, runs)
    assert whole == resumed
