"""Whole ablations on a tiny model: killed, continued, interrupted, with a run that fails."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from fastslow.results.ablation.figures import FIGURES, claim_figures
from fastslow.results.ablation.result import make_result
from fastslow.results.ablation.write import json_text, markdown
from tests.support.made_ablation import both_and_slow, config
from tests.support.paths import ROOT

FILE = "configs/ablations/channels-tiny.yaml"
TOYS = [
    "seeds=[0]",
    "tasks.country_continent.use=tests.support.toy_tasks:parity",
    "tasks.word_valence.use=tests.support.toy_tasks:letters",
    "slow.lr=0.02",
]


def words(runs: Path, model: Path, *others: str) -> list[str]:
    overrides = [*TOYS, f"model.name={model}", f"runs_dir={runs}", *others]
    return [sys.executable, "-m", "fastslow", "ablate", FILE, *overrides]


def ablate(runs: Path, model: Path, *others: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        words(runs, model, *others), cwd=ROOT, capture_output=True, text=True, check=False
    )


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


def folders(runs: Path) -> dict[str, Path]:
    """Run folders by the name of the run."""
    cards = (runs / "channels-tiny").glob("*/run.json")
    return {json.loads(card.read_text())["name"]: card.parent for card in cards}


def result_bytes(runs: Path) -> bytes:
    return (runs / "channels-tiny" / "ablation.json").read_bytes()


def statuses(runs: Path) -> dict[str, str]:
    with (runs / "channels-tiny" / "runs.csv").open() as file:
        return {f"{row['arm']}-s{row['seed']}": row["status"] for row in csv.DictReader(file)}


@pytest.mark.timeout(600)  # six runs, each a process that imports everything
def test_a_killed_ablation_goes_on_and_says_what_an_undisturbed_one_says(
    tmp_path: Path, tiny_folder: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = ablate(whole, tiny_folder, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert set(statuses(whole).values()) == {"finished"}
    assert "Claims put to the test: " in done.stdout
    assert "Arms of channels-tiny" in done.stdout

    # the same ablation with one arm finished
    shutil.copytree(whole, killed)
    for name in ("slow-only-s0", "fst-s0"):
        shutil.rmtree(folders(killed)[name])
    process = subprocess.Popen(
        words(killed, tiny_folder),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(lambda: list((killed / "channels-tiny").glob("*-slow-only-s0-*/resume/00*")))
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert sorted(folders(killed)) == ["base-s0", "slow-only-s0"]

    again = ablate(killed, tiny_folder)
    assert again.returncode == 0, again.stderr
    started = [line.split(" (")[0] for line in again.stderr.splitlines() if "starting" in line]
    assert started == ["starting fst-s0"]
    assert "base-s0" not in [name for line in again.stderr.splitlines() for name in line.split()]
    assert len(folders(killed)) == len(list((killed / "channels-tiny").glob("*/run.json"))) == 3
    assert result_bytes(killed) == result_bytes(whole)


def test_an_interrupt_stops_the_runs_and_a_failing_run_does_not_stop_the_others(
    tmp_path: Path, tiny_folder: Path
) -> None:
    file, home = tmp_path / "two.yaml", tmp_path / "two"
    file.write_text(
        f"name: two\nbase: {ROOT / 'configs/tests/tiny.yaml'}\nseeds: [0]\n"
        f"common: {{fast: null, slow: null, tracking: null, model: {{name: {tiny_folder}}}}}\n"
        "arms: {one: {}, other: {evaluation: {test_examples: 4}}}\n"
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
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "1 of 2 runs did not end well, got one-s0 (exit code 2: " in done.stderr
    assert "finished other-s0" in done.stderr
    found = json.loads((home / "ablation.json").read_text())
    assert found["missing"] == ["one-s0"]
    assert [run["arm"] for run in found["runs"]] == ["other"]


def test_figures_and_files_are_the_same_every_time() -> None:
    result = make_result(config(), both_and_slow(), Counter({"fst": 3, "slow-only": 3}))
    drawings = claim_figures(result)
    assert tuple(drawing.name for drawing in drawings) == FIGURES
    assert drawings == claim_figures(result)
    assert all(drawing.png.startswith(b"\x89PNG") for drawing in drawings)
    assert json_text(result) == json_text(result)
    assert "Needs fewer slow rollouts for the same score" in markdown(result, drawings)
