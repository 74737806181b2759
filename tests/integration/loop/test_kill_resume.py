"""SIGKILL at random moments, then go on; `python -m benchmarks.kill_resume` does it at length."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

KINDS = ("train", "gate", "export", "rollback")


@pytest.mark.timeout(600)
def test_runs_and_commands_that_were_killed_end_as_if_they_had_not_been(tmp_path: Path) -> None:
    words = ["--kills", "1", "--others", "1", "--workers", "1", "--forks"]
    words += [word for kind in KINDS for word in ("--only", kind)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.kill_resume", *words, "--json", tmp_path / "kills.json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("".join(f"{kind}: 1/1\n" for kind in reversed(KINDS)))
    figures = json.loads((tmp_path / "kills.json").read_text())
    kinds = {"train": figures, **figures["commands"]}
    ends = {name: (kind["kills"], kind["identical"]) for name, kind in kinds.items()}
    assert ends == dict.fromkeys(KINDS, (1, 1))
