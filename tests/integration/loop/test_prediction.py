"""What a run was expected to take, kept next to what it took."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from benchmarks import prediction
from fastslow.core.errors import CheckpointError
from tests.support.runs import start


def num_weights(file: Path) -> int:
    """Numbers in all tensors of a file."""
    with safe_open(file, "np") as tensors:
        return sum(tensors.get_tensor(name).size for name in tensors.keys())  # noqa: SIM118  # no dict


def test_a_run_keeps_its_estimate_and_its_peak_and_both_are_compared(
    tmp_path: Path, tiny_folder: Path
) -> None:
    run = start(tmp_path, [f"model.name={tiny_folder}", "evaluation.neutral=false"])
    row = prediction.prediction(run)
    assert isinstance(row["estimated_minutes"], float)
    assert isinstance(row["estimated_gb"], float)
    assert isinstance(row["peak_gb"], float)
    assert 0.1 < row["peak_gb"] < 50  # torch alone takes more than the first
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert row["minutes"] == events[-1]["seconds"] / 60
    adapter = next((run / "stages").rglob("adapter_model.safetensors"))
    assert events[-1]["trainable"] == num_weights(adapter)
    base = num_weights(tiny_folder / "model.safetensors")
    assert events[-1]["parameters"] == base + num_weights(adapter)
    (tmp_path / "kept.json").write_text(json.dumps([row, row | {"estimated_minutes": None}]))
    *_, first, second = prediction.table(tmp_path / "kept.json")
    assert first.startswith(f"| {row['run']} | {row['estimated_minutes']:.1f} | ")
    assert second.startswith(f"| {row['run']} | unknown | ")
    assert prediction.table(tmp_path / "nothing.json") == []


def test_an_older_run_has_nothing_to_compare() -> None:
    with pytest.raises(CheckpointError, match=r"not a finished run with estimate\.json"):
        prediction.prediction(Path("runs/reference/demo"))
