"""Whole ablations on a tiny model: killed, continued, interrupted, with a run that fails."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fastslow.cli.main import main
from fastslow.results.ablation.execute import write_config
from fastslow.results.ablation.figures import FIGURES, claim_figures
from fastslow.results.ablation.plan import PlannedRun
from fastslow.results.ablation.plan_file import read_plan
from fastslow.results.ablation.result import make_result
from fastslow.results.ablation.write import json_text, markdown
from tests.support.made_ablation import both_and_slow, config
from tests.support.paths import ROOT

ARMS = """
name: two
base: {base}
seeds: [0]
common:
  tracking: null
  model: {{name: {model}}}
  evaluation: {{neutral: false, geometry: false, proxies: false}}
arms:
  trained: {{fast: null, slow: {{lr: 0.02}}}}
  base: {{fast: null, slow: null}}
"""


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def train(run: PlannedRun) -> None:
    """Make a run of an ablation in this process, which has imported everything."""
    assert main(["train", str(write_config(run))]) == 0


@pytest.mark.timeout(600)
def test_a_killed_ablation_goes_on_and_says_what_an_undisturbed_one_says(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its finished arm stays, the run that was killed with it is resumed, and no other is made."""
    file = tmp_path / "two.yaml"
    file.write_text(ARMS.format(base=ROOT / "configs/tests/tiny.yaml", model=tiny_folder))
    whole, killed = (
        ["ablate", str(file), f"runs_dir={tmp_path / name}"] for name in ("whole", "killed")
    )
    trained, base = read_plan(file, whole[2:]).runs
    for run in (trained, base):
        train(run)
    assert main(whole) == 0
    assert "Arms of two" in capsys.readouterr().out

    train(read_plan(file, killed[2:]).runs[1])
    process = subprocess.Popen(
        [sys.executable, "-m", "fastslow", *killed],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    folder = tmp_path / "killed" / "two"
    wait_for(lambda: list(folder.glob("*-trained-s0-*/resume/00*")))
    [child] = psutil.Process(process.pid).children()
    for pid in (process.pid, child.pid):  # runs are process groups of their own
        os.kill(pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)

    capsys.readouterr()
    assert main(killed) == 0
    errors = capsys.readouterr().err
    assert [word for word in ("starting", "resuming") if f"{word} trained-s0" in errors] == [
        "resuming"
    ]
    assert "base-s0" not in errors
    assert len(list(folder.glob("*/run.json"))) == 2
    for name in ("ablation.json", "records.jsonl", "arms.csv", "differences.csv"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / "two" / name).read_bytes()
    with (folder / "runs.csv").open() as table:
        assert {row["status"] for row in csv.DictReader(table)} == {"finished"}


def test_an_interrupt_stops_the_runs_and_a_failing_run_does_not_stop_the_others(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, home = tmp_path / "two.yaml", tmp_path / "two"
    stages = ", ".join(["{task: country_continent, cycles: 1}"] * 20)  # so that it takes a while
    file.write_text(
        f"name: two\nbase: {ROOT / 'configs/tests/tiny.yaml'}\nseeds: [0]\n"
        f"common: {{fast: null, slow: null, tracking: null, model: {{name: {tiny_folder}}}}}\n"
        f"arms: {{one: {{stages: [{stages}]}}, other: {{evaluation: {{test_examples: 4}}}}}}\n"
    )
    command = [sys.executable, "-m", "fastslow", "ablate", str(file), f"runs_dir={tmp_path}"]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that started the tests in the background has them ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for(lambda: list(home.glob("*-one-s0-*/scores.jsonl")))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "To continue: fastslow ablate" in errors
    [card] = home.glob("*/run.json")
    assert json.loads(card.read_text())["state"] == "interrupted"

    card.with_name("config.json").write_text("{}")  # nothing can resume it
    assert main(command[3:]) == 1
    errors = capsys.readouterr().err
    assert "1 of 2 runs did not end well, got one-s0 (exit code 2: " in errors
    assert "finished other-s0" in errors
    found = json.loads((home / "ablation.json").read_text())
    assert found["missing"] == ["one-s0"]
    assert [run["arm"] for run in found["runs"]] == ["other"]


def test_an_arm_whose_data_does_not_suffice_is_refused_before_any_arm_runs(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "short.yaml"
    file.write_text(
        f"name: short\nbase: {ROOT / 'configs/tests/tiny.yaml'}\nseeds: [0]\n"
        f"common: {{tracking: null, model: {{name: {tiny_folder}}}}}\n"
        "arms: {one: {fast: null}, other: {cycle: {pool: 100000}}}\n"
    )
    assert main(["ablate", str(file), f"runs_dir={tmp_path}"]) == 2
    errors = capsys.readouterr().err
    assert "are too few for cycle.pool = 100000 demonstrations" in errors
    assert "task country_continent" in errors
    assert "task word_valence" in errors
    assert not (tmp_path / "short").exists()


def test_figures_and_files_are_the_same_every_time() -> None:
    result = make_result(config(), both_and_slow(), Counter({"fst": 3, "slow-only": 3}))
    drawings = claim_figures(result)
    assert tuple(drawing.name for drawing in drawings) == FIGURES
    assert drawings == claim_figures(result)
    assert all(drawing.png.startswith(b"\x89PNG") for drawing in drawings)
    assert json_text(result) == json_text(result)
    assert "Needs fewer slow rollouts for the same score" in markdown(result, drawings)
