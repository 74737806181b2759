"""Rates of a machine: measured on a real tiny model, kept, and ignored when damaged."""

from dataclasses import astuple, replace
from datetime import date
from pathlib import Path

import pytest

from fastslow.cli.main import main
from fastslow.config.models import RunConfig
from fastslow.loop.build import build_policy
from fastslow.loop.estimate import calibrate, estimate
from fastslow.policy.calibration import measure_rates, rates_file, read_rates, write_rates
from tests.support.toy_tasks import letters


@pytest.fixture
def config(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    monkeypatch.setenv("FASTSLOW_HOME", str(tmp_path / "home"))
    model = {"name": str(tiny_folder), "device": "cpu"}
    return RunConfig.model_validate({"name": "r", "model": model, "stages": [{"task": "a"}]})


def test_measuring_takes_time_and_changes_nothing(config: RunConfig) -> None:
    policy = build_policy(config, config.model.name, date(2026, 1, 2))
    before = policy.adapters.copied()
    rates = measure_rates(policy, 1.5)
    assert rates.load_s == 1.5
    assert all(value > 0 for value in astuple(replace(rates, step_s=1.0)))
    assert rates.step_s >= 0
    for name, weight in policy.adapters.trainable().items():
        assert weight.grad is None
        assert weight.equal(before[name])


def test_an_estimate_uses_the_rates_that_were_measured_here(
    config: RunConfig, tiny_folder: Path
) -> None:
    tasks = {"a": letters.build("a")}
    assert "for 2 CPU cores" in estimate(config, tasks).note
    calibrate(config)
    kept = read_rates(tiny_folder, "auto", "cpu")
    assert kept is not None
    cost = estimate(config, tasks)
    assert "from rates measured here, and the lengths" in cost.note
    write_rates(tiny_folder, "auto", "cpu", replace(kept, load_s=kept.load_s + 600))
    slower = estimate(config, tasks)
    assert cost.minutes is not None
    assert slower.minutes == pytest.approx(cost.minutes + 10)


def test_check_measures_when_it_is_asked_to_and_uses_it_from_then_on(
    config: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    use = "{use: tests.support.toy_tasks:letters}"
    file.write_text(f"name: r\ntasks: {{a: {use}}}\nstages: [{{task: a}}]\n")
    words = ["check", str(file), f"model.name={config.model.name}", "model.device=cpu"]
    notes: list[str] = []
    for options in (list[str](), ["--calibrate"], list[str]()):
        assert main([*words, *options]) == 0
        lines = capsys.readouterr().out.splitlines()
        notes.append(next(line for line in lines if "estimates" in line))
        is_named = any("the adapter is on down_proj, gate_proj, k_proj" in line for line in lines)
        assert is_named == bool(options)
    assert "for 2 CPU cores, and the lengths of the tasks' texts" in notes[0]
    assert "from rates measured here, and the lengths of the tasks' texts" in notes[1] == notes[2]


def test_rates_of_other_circumstances_and_damaged_ones_do_not_count(
    config: RunConfig, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calibrate(config)
    assert read_rates(tiny_folder, "bfloat16", "cpu") is None
    assert read_rates(tmp_path / "nowhere", "float32", "cpu") is None
    name = rates_file(tiny_folder, "auto", "cpu")
    with monkeypatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "7")
        assert read_rates(tiny_folder, "float32", "cpu") is None
    file = tmp_path / "home" / "rates" / name
    assert [path.name for path in file.parent.iterdir()] == [name]
    for text in ("", "[]", "{", '{"load_s": "x"}', "null"):
        file.write_text(text)
        assert read_rates(tiny_folder, "float32", "cpu") is None
        assert "for 2 CPU cores" in estimate(config, {}).note
