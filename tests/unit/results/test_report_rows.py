"""Which recorded scores stand for a cell of the matrix, and which are refused or not compared."""

from dataclasses import replace
from pathlib import Path

import pytest

from fastslow.core.errors import CheckpointError
from fastslow.records.run_folder import RunDir
from fastslow.results.report import build_report
from tests.support.run_folder import OUTCOMES, report_json, score_row, write_run


def test_samples_are_averaged_within_an_example_before_examples_are(tmp_path: Path) -> None:
    run = write_run(tmp_path, [{"alpha": "01"}, {"alpha": "01"}], ("alpha",))
    row = score_row(run.name, 1, "alpha", 0, 1.0, ("alpha",))
    with RunDir.open(run) as run_dir:
        for sample in (1, 2, 3):
            run_dir.scores.append(replace(row, sample=replace(row.sample, sample=sample)))
        measured_within = replace(row, cycle=0)
        other_text = replace(row, sample=replace(row.sample, prompt_policy="own"))
        run_dir.scores.append(measured_within, other_text)
    data = report_json(run)
    assert data["scores"][1] == [0.875]  # (mean of 0 1 1 1 + 1) / 2
    assert data["cells"][1][0]["interval"]["method"] == "normal"


def test_a_sample_recorded_twice_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    with RunDir.open(run) as run_dir:
        run_dir.scores.append(score_row(run.name, 2, "beta", 3, 1.0))
    with pytest.raises(CheckpointError, match=r"example 'e3', task 'beta', row 2: recorded twice"):
        build_report(run)


def relabelled(tmp_path: Path, *, keep_texts: bool) -> Path:
    """A run whose visited tasks were all scored as `seed`, with or without texts of their own."""
    run = write_run(tmp_path)
    scores = run / "scores.jsonl"
    scores.write_text(scores.read_text().replace('"live"', '"seed"'))
    if not keep_texts:
        events = run / "events.jsonl"
        lines = events.read_text().splitlines(keepends=True)
        events.write_text("".join(line for line in lines if '"text"' not in line))
    return run


def test_without_texts_the_seed_text_is_what_is_deployed(tmp_path: Path) -> None:
    data = report_json(relabelled(tmp_path, keep_texts=False))
    assert data["metrics"]["bwt_gem"]["value"] == -0.4375
    assert data["cells"][3][0]["prompt_policy"] == "seed"
    assert data["prompts"] == {}


def test_a_score_with_the_seed_text_never_stands_for_the_deployed_one(tmp_path: Path) -> None:
    data = report_json(relabelled(tmp_path, keep_texts=True))
    assert data["scores"][3] == [None, None, None]
    assert data["metrics"]["bwt_gem"]["value"] is None


def test_rows_scored_on_other_examples_are_not_compared(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    with RunDir.open(run) as run_dir:
        run_dir.scores.append(score_row(run.name, 3, "alpha", 99, 1.0))
    data = report_json(run)
    assert data["per_task"]["alpha"]["change"]["reason"] == (
        "rows 1 and 3 were scored on other examples"
    )
    assert data["intervals"] == {}


def test_a_held_out_task_leaves_backward_transfer_its_interval(tmp_path: Path) -> None:
    alone = report_json(write_run(tmp_path / "a"))
    rows = [{**row, "delta": "00000000"} for row in OUTCOMES]
    beside = report_json(write_run(tmp_path / "b", rows, held_out=("delta",)))
    assert beside["tasks"] == ["alpha", "beta", "gamma", "delta"]
    assert beside["intervals"] == alone["intervals"] != {}


def test_a_sample_recorded_again_as_reused_is_no_damage(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    before = report_json(run)
    with RunDir.open(run) as run_dir:
        made = score_row(run_dir.path.name, 0, "alpha", 0, 0.0)
        run_dir.scores.append(replace(made, reused=True))
    assert report_json(run) == before
