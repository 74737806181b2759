"""Many runs, rows, stages and arms: what is read, drawn and printed of them, by count."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import load
from fastslow.cli.main import main
from fastslow.core.errors import CheckpointError
from fastslow.records import jsonl
from fastslow.records.events import ScoreRow
from fastslow.records.jsonl import RecordWriter
from fastslow.results.compare import tables
from fastslow.results.listing import list_runs
from fastslow.results.render import drawing
from fastslow.results.report import build_report
from fastslow.results.report.sections.retention import Retention
from fastslow.results.report.sections.scores import Scores, ScoresOverStages
from tests.support.paths import ROOT
from tests.support.run_folder import (
    OUTCOMES,
    long_sequence,
    report_json,
    score_row,
    without_seal,
    write_run,
)

HEAVY = {"torch", "transformers", "dspy", "mlflow", "matplotlib", "fastslow.results.report"}


def counted(monkeypatch: pytest.MonkeyPatch) -> tuple[Counter[str], Counter[str]]:
    """Names of files that are opened from here on, and how many lines are parsed."""
    opened, parsed = Counter[str](), Counter[str]()
    inner_open, inner_record = os.open, jsonl._record

    def open_file(path: os.PathLike[str], flags: int, *rest: int) -> int:
        opened[Path(path).name] += 1
        return inner_open(path, flags, *rest)

    def record(line: bytes) -> object:
        parsed["lines"] += 1
        return inner_record(line)

    monkeypatch.setattr(os, "open", open_file)
    monkeypatch.setattr(jsonl, "_record", record)
    return opened, parsed


def test_a_listed_run_is_opened_once_and_its_last_row_alone_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path)
    opened, parsed = counted(monkeypatch)
    [summary] = list_runs(tmp_path)
    assert summary.stages_done == 3
    assert parsed["lines"] == 25  # three tasks of eight examples, and the end of the row before
    assert (opened["run.json"], opened["scores.jsonl"]) == (1, 1)
    assert not opened.keys() & {"events.jsonl", "config.json", "seal.json"}
    monkeypatch.undo()
    report_json(run)
    opened, parsed = counted(monkeypatch)
    [again] = list_runs(tmp_path)
    assert (again.state, again.stages_done, again.score) == ("finished", 3, summary.score)
    assert not parsed
    assert (opened["report.json"], opened["scores.jsonl"]) == (1, 0)


def test_a_report_that_does_not_fit_the_run_is_not_listed(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    summaries = list_runs(tmp_path)
    content = report_json(run)
    for scores in (
        None,
        [],
        [[1.0, 1.0, 1.0]],
        [*content["scores"][:-1], [1.0, 1.0, None]],
        [*content["scores"][:-1], [1.0, 1.0, 7.0]],
        [*content["scores"][:-1], {"a": 1}],
    ):
        (run / "report.json").write_text(json.dumps({**content, "scores": scores}))
        assert [s.score for s in list_runs(tmp_path)] == [s.score for s in summaries]


def test_a_line_is_what_the_report_would_say_however_far_the_run_is(tmp_path: Path) -> None:
    run = without_seal(write_run(tmp_path))
    extra = score_row(run.name, 0, "alpha", 0, 1.0)  # the base under another prompt comes late
    sample = replace(extra.sample, prompt_policy="own")
    lines = (run / "scores.jsonl").read_text().splitlines(keepends=True)
    for number in (0, 1, 23, 24, 25, 47, 48, 71, 72, 95, 96):
        (run / "scores.jsonl").write_text("".join(lines[:number]))
        with RecordWriter(run / "scores.jsonl") as scores:
            if number:
                scores.append(ScoreRow(run.name, 0, None, sample))
        report, [summary] = build_report(run), list_runs(tmp_path)
        rows = report.rows_measured
        assert summary.stages_done == (rows - 1 if rows else None)
        if rows:
            cells = [cell.score or 0.0 for cell in report.cells[rows - 1]]
            assert summary.score == pytest.approx(sum(cells) / 3)


@pytest.mark.parametrize("block", [1, 7, 1 << 17])
def test_records_are_read_back_as_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(jsonl, "_BLOCK", block)
    path = write_run(tmp_path, OUTCOMES[:2]) / "scores.jsonl"
    with path.open("a") as file:
        file.write('{"unfinished')
    records = list(jsonl.read_records(path))
    assert list(jsonl.read_back(path)) == records[::-1]
    assert len(records) == 48
    (tmp_path / "empty").touch()
    assert list(jsonl.read_back(tmp_path / "empty")) == []
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "nonsense", *lines[2:-1]]) + "\n")
    with pytest.raises(CheckpointError, match=r"scores\.jsonl:2: not a record"):
        list(jsonl.read_back(path))


@pytest.mark.parametrize(
    "value", ['"tokens": 18446744073709551616', '"tokens": -1', '"score": 1e999', '"score": NaN']
)
def test_numbers_of_a_score_are_bounded(tmp_path: Path, value: str) -> None:
    path = write_run(tmp_path, OUTCOMES[:1]) / "scores.jsonl"
    line = json.loads(path.read_text().splitlines()[0])
    name = value.split('"')[1]
    text = json.dumps({key: field for key, field in line.items() if key != name})
    path.write_text(text[:-1] + f", {value}}}\n")
    with pytest.raises(CheckpointError, match=r"scores\.jsonl:1: not a record"):
        list(jsonl.read_records(path))


def test_a_completion_with_half_a_pair_is_read(tmp_path: Path) -> None:
    path = write_run(tmp_path, OUTCOMES[:1]) / "scores.jsonl"
    line = json.loads(path.read_text().splitlines()[0]) | {"completion": "\ud83d"}
    path.write_text(json.dumps(line) + "\n")
    [row] = jsonl.read_scores(path)
    assert row.sample.completion == "\ud83d"


def test_runs_imports_nothing_heavy(tmp_path: Path) -> None:
    write_run(tmp_path)
    code = (
        "import sys; from fastslow.cli.main import main; main(['runs', sys.argv[1]]); "
        f"print(sorted({HEAVY} & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout
    assert printed.splitlines()[-1] == "[]"


def test_prompts_are_listed_without_a_look_at_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path)
    opened, _ = counted(monkeypatch)
    assert main(["prompts", str(run)]) == 0
    assert opened["scores.jsonl"] == 0


def test_a_long_run_is_drawn_with_a_line_a_task(tmp_path: Path) -> None:
    num_stages = drawing.MAX_STAGES + 2
    report = build_report(write_run(tmp_path, *long_sequence(num_stages)))
    matrix = report.section(Scores).draw()
    assert matrix.size == (drawing.WIDTH, drawing.WIDTH)
    for kind in (ScoresOverStages, Retention):
        section = report.section(kind)
        sketch = section.draw()
        assert sketch is not None
        with drawing.painted(sketch.paint, sketch.size) as figure:
            assert (
                len(figure.axes[0].lines) <= 2 * drawing.MAX_TASKS + 1
            )  # its scores, and those within its stage
    with drawing.painted(matrix.paint, matrix.size) as figure:
        [image] = figure.axes[0].images
        assert np.shape(image.get_array()) == (num_stages + 1, num_stages)  # type: ignore[arg-type]
        assert not figure.axes[0].texts


def test_many_arms_are_compared_in_a_line_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    worse = [*OUTCOMES[:-1], {**OUTCOMES[-1], "beta": "00000000"}]
    runs = [write_run(tmp_path / str(i), worse if i == 1 else OUTCOMES) for i in range(4)]
    words = ["compare", *map(str, runs)]
    assert main(words) == 0
    assert "Score at the end, and forgetting" in capsys.readouterr().out
    monkeypatch.setattr(tables, "MAX_LINES", 5)
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(": 0 significantly higher on a task, 0 lower.")
    arms = [line.split() for line in lines if line.startswith(("1/", "2/", "3/"))]
    assert [arm[1] for arm in arms] == ["-0.25", "+0.00", "+0.00"]
    monkeypatch.setattr(tables, "MAX_ARMS", 2)
    assert main(words) == 0
    assert "The first 2 of 3 arms." in " ".join(capsys.readouterr().out.split())


def test_growth_is_one_where_cost_is_proportional_and_more_where_it_is_not() -> None:
    sizes = (100, 500, 1000)
    linear, quadratic = [(n, 7 + 0.1 * n) for n in sizes], [(n, 1e-3 * n * n) for n in sizes]
    assert load._growth(linear, 2.0) == pytest.approx(1.0)
    assert load._growth(quadratic, 2.0) == pytest.approx(2.5)
    assert load._growth([(n, 5 + 1e-4 * n) for n in sizes], 2.0) is None


def test_load_is_measured_and_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "load.json"
    words = ["--tiny", "--only", "runs, without", "--json", str(file)]
    assert load.main(words) == 0
    [work] = json.loads(file.read_text())["works"]
    assert [cost["units"] for cost in work["costs"]] == [2, 3, 4]
    assert [cost["lines"] for cost in work["costs"]] == [3, 4, 5]
    assert "| runs, without reports | 4 runs |" in capsys.readouterr().out
