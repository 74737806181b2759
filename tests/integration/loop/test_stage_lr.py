"""A stage with a learning rate of its own: used there alone, and after a resume too."""

from pathlib import Path

import pytest

from fastslow.loop import launch
from fastslow.records.events import StepEvent
from fastslow.records.jsonl import read_events
from tests.support.runs import no_report, outcome, whole_and_cut

STAGES = "stages=[{task: first, cycles: 2, lr: 0.05}, {task: second, cycles: 1}]"


def test_a_stage_trains_at_its_own_learning_rate_and_goes_on_so_when_resumed(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = [f"model.name={tiny_folder}", STAGES, "slow={kind: sft, lr: 0.02}"]
    whole, broken = whole_and_cut(2, tmp_path, overrides, monkeypatch)
    runs = [whole, launch.resume(broken, no_report)]
    for run in runs:
        steps = [e for e in read_events(run / "metrics.jsonl") if isinstance(e, StepEvent)]
        rates = [(e.stage, e.metrics["slow/lr"]) for e in steps]
        rising = [(0, 0.05 / 3), (0, 0.05 * 2 / 3), (0, 0.05), (0, 0.05)]
        expected = [*rising, (1, 0.02 / 3), (1, 0.02 * 2 / 3)]  # two updates of warm-up each
        assert [stage for stage, _ in rates] == [stage for stage, _ in expected]
        assert [lr for _, lr in rates] == pytest.approx([lr for _, lr in expected])
    assert outcome(runs[0]) == outcome(runs[1])
