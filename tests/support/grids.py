"""The tiny ablation of configs/ablations, made by `fastslow ablate` as a process of its own."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.support.paths import ROOT

FILE = "configs/ablations/channels-tiny.yaml"
TOYS = [
    "tasks.country_continent.use=tests.support.toy_tasks:parity",
    "tasks.word_valence.use=tests.support.toy_tasks:letters",
    "slow.lr=0.02",
]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def words(runs: Path, model: Path, *others: str) -> list[str]:
    overrides = [*TOYS, f"model.name={model}", f"runs_dir={runs}", *others]
    return [sys.executable, "-m", "fastslow", "ablate", FILE, *overrides]


def start(runs: Path, model: Path, *others: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words(runs, model, *others),
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # which a shell has background jobs ignore
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ablate(runs: Path, model: Path, *others: str) -> subprocess.CompletedProcess[str]:
    """Make it to its end."""
    return subprocess.run(
        words(runs, model, *others),
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


def result_bytes(runs: Path) -> bytes:
    return (runs / "channels-tiny" / "ablation.json").read_bytes()


def statuses(runs: Path) -> dict[str, str]:
    with (runs / "channels-tiny" / "runs.csv").open() as file:
        return {f"{row['arm']}-s{row['seed']}": row["status"] for row in csv.DictReader(file)}


def wait_for(condition: Callable[[], object], seconds: float = 600) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)
