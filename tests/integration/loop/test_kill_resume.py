"""SIGKILL at random moments, twice; `python -m benchmarks.kill_resume` does it at length."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

KILLS = 2


@pytest.mark.timeout(600)
def test_runs_that_were_killed_end_as_if_they_had_not_been(tmp_path: Path) -> None:
    words = ["--kills", str(KILLS), "--workers", "1", "--json", str(tmp_path / "kills.json")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kill_resume", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"{KILLS}/{KILLS}\n")
    figures = json.loads((tmp_path / "kills.json").read_text())
    assert figures["identical"] == len(figures["each"]) == KILLS
