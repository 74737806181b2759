"""`fastslow runs`, and the states it reads off folders."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastslow.cli.main import main
from fastslow.records.lock import read_state
from fastslow.records.run_folder import RunDir
from tests.support.paths import ROOT
from tests.support.run_folder import OUTCOMES, config, write_run


def states(folder: Path) -> dict[str, str]:
    return {path.name: read_state(path) for path in folder.iterdir()}


@pytest.mark.parametrize("state", ["finished", "failed", "interrupted"])
def test_a_run_that_ended_is_in_the_state_it_wrote(tmp_path: Path, state: str) -> None:
    with RunDir.create(config(tmp_path), {}, []) as run_dir:
        assert read_state(run_dir.path) == "running"
        run_dir.mark(state)  # type: ignore[arg-type]  # the values of the Literal
    assert read_state(run_dir.path) == state


def test_a_run_that_was_killed_has_died_and_one_that_works_is_running(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from fastslow.records.run_folder import RunDir; "
        "from tests.support.run_folder import config; "
        "made = RunDir.create(config(Path(sys.argv[1])), {}, []); "
        "print(made.path, flush=True); sys.stdin.read(1); os.kill(os.getpid(), 9)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        assert json.loads((path / "run.json").read_text())["state"] == "running"
        assert read_state(path) == "running"
        process.communicate("x")
    assert read_state(path) == "died"
    with RunDir.open(path):  # a resumed run
        assert read_state(path) == "running"


def test_runs_lists_state_stage_score_start_and_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    complete = write_run(tmp_path)
    half = write_run(tmp_path, OUTCOMES[:3])
    with RunDir.open(half) as opened:
        opened.mark("interrupted")
    (tmp_path / "no-run").mkdir()
    broken = write_run(tmp_path)
    (broken / "scores.jsonl").write_text("nonsense\n")
    assert main(["runs", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    titles, *lines = printed.out.splitlines()
    assert titles.split() == ["run", "state", "stage", "score", "started", "size"]
    rows = {line.split("  ")[0]: line.split() for line in lines}
    assert set(rows) == {complete.name, half.name, broken.name}
    mean = sum(map(int, "".join(OUTCOMES[3].values()))) / 24
    assert rows[complete.name][1:6] == ["finished", "3", "of", "3", f"{mean:.3f}"]
    assert rows[half.name][1:5] == ["interrupted", "2", "of", "3"]
    assert rows[broken.name][1:4] == ["unreadable", "-", "-"]
    assert "KiB" in rows[complete.name][-1]
    assert "scores.jsonl:1: not a record" in printed.err


def test_runs_says_where_those_of_an_ablation_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path / "arms")
    write_run(tmp_path / "arms")
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"in {tmp_path / 'arms'}: 2 runs\n"


def test_runs_says_where_there_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: no runs\n"
    assert main(["runs", str(tmp_path / "nowhere")]) == 2
    assert main(["runs", "x" * 300]) == 2
    assert "no such folder" in capsys.readouterr().err
