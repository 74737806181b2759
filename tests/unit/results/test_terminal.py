"""The end of a run on one screen; everything else behind --full."""

import re
from pathlib import Path

import pytest

from fastslow.cli.main import main
from fastslow.results import report as results
from fastslow.results.report.sections.weights import MODULES
from tests.support.paths import ROOT
from tests.support.run_folder import long_sequence, terminal, write_run

DEMO = ROOT / "runs" / "reference" / "demo"
SCREEN = 40 - 3
"""Lines; the command adds how to see all, the page and the folder."""


@pytest.mark.parametrize("width", [80, 120])
def test_the_demonstration_ends_on_one_screen_that_says_what_matters(width: int) -> None:
    shown = terminal(DEMO, width, full=False)
    assert len(shown.splitlines()) <= SCREEN
    assert shown.startswith("Learned 3 of 3 tasks beyond chance")
    for words in ("Score matrix", "constant answer", "uniform guess", "since then", "minutes"):
        assert words in shown
    assert re.search(r"country_continent +● kept +[+-]0\.\d\d", shown)


@pytest.mark.parametrize("width", [80, 120])
def test_ten_tasks_are_a_line_each(tmp_path: Path, width: int) -> None:
    rows, names = long_sequence(10)
    shown = terminal(write_run(tmp_path, rows, names), width, full=False)
    assert len(shown.splitlines()) <= SCREEN
    assert "Score matrix" not in shown
    assert len(re.findall(r"^task_\d\d  ", shown, re.MULTILINE)) == 10
    assert re.search(r"task_00 +▼ forgot +0\.00 +1\.00 +0\.00 +- +-1\.00", shown)


def test_tasks_that_are_not_shown_are_counted(tmp_path: Path) -> None:
    rows, names = long_sequence(26)
    shown = terminal(write_run(tmp_path, rows, names), full=False)
    assert "2 more tasks: --full." in shown
    assert "task_23  " in shown
    assert "task_24  " not in shown


def test_names_of_modules_are_counted_and_never_listed() -> None:
    shown = " ".join(terminal(DEMO).split())
    assert "mean over layers 30 modules" in shown
    names = re.findall(r"model\.layers\.\d+\.[.\w]+\w", shown)
    assert names == ["model.layers.0.mlp.down_proj", "model.layers.29.mlp.down_proj"]
    assert MODULES.sub("-", "of layers a.0.b, c.d and 0.3, 0.5 of e.f") == (
        "of layers - and 0.3, 0.5 of e.f"
    )


def test_the_command_prints_one_screen_or_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path)
    monkeypatch.setattr(results, "save_report", lambda report: ())  # its figures take seconds
    assert main(["report", str(run)]) == 0
    short = capsys.readouterr().out
    assert f"every table and prompt: fastslow report {run} --full\n" in short
    assert "Answer alpha." not in short
    assert main(["report", str(run), "--full"]) == 0
    full = capsys.readouterr().out
    assert "Answer alpha." in full
    assert "every table and prompt" not in full
    assert all(out.endswith(f"run folder: {run}\n") for out in (short, full))
