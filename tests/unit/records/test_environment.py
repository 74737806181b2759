"""What is asked of the machine about a folder, and what is not."""

import subprocess
from pathlib import Path

import pytest

from fastslow.records.environment import why_not_to_write
from tests.support.paths import ROOT


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="a copy without its repository")
def test_a_kept_run_is_not_written_again() -> None:
    kept = ROOT / "runs" / "reference" / "demo"
    assert why_not_to_write(kept) == "it is kept under version control"


def test_a_repository_within_a_folder_of_somebody_else_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path / "run")], check=True)

    def refuse(*words: object, **_: object) -> None:
        raise AssertionError(f"started: {words}")

    monkeypatch.setattr(subprocess, "run", refuse)
    assert why_not_to_write(tmp_path / "run") is None
