"""The figures of a row are those that the report has."""

from pathlib import Path

import pytest

from fastslow.records.jsonl import read_events, read_scores
from fastslow.records.row_metrics import FORMULAS, SCORES, mean_kl, row_metrics
from fastslow.records.tracking.records import read_run_records
from fastslow.results.report.build import build_report
from fastslow.results.report.sections.cost import Cost, Stages
from fastslow.results.report.sections.metrics import Metrics
from tests.support.paths import ROOT
from tests.support.run_folder import OUTCOMES, write_run

DEMO = ROOT / "runs" / "reference" / "demo"


def figures(run: Path, row: int) -> dict[str, float]:
    card = build_report(run).card
    events, scores = read_events(run / "events.jsonl"), read_scores(run / "scores.jsonl")
    return row_metrics(card.tasks, card.stages, scores, events, row)


@pytest.mark.parametrize("name", ["small", "demo"])
def test_each_row_has_the_figures_of_its_stage_in_the_report(name: str, tmp_path: Path) -> None:
    run = DEMO if name == "demo" else write_run(tmp_path)
    report = build_report(run)
    for index, stage in enumerate(report.section(Stages).stages):
        metrics = figures(run, index + 1)
        for metric in SCORES:
            assert metrics.get(metric) == stage.metrics[metric].value, (index, metric)
    final = report.section(Metrics).metrics
    assert {m: metrics[m] for m in SCORES} == {m: final[m].value for m in SCORES}
    rollouts = report.section(Cost).rollouts
    assert metrics["rollouts"] == rollouts["fast"] + rollouts["slow"]


def test_records_of_later_rows_change_nothing(tmp_path: Path) -> None:
    whole, begun = write_run(tmp_path / "a"), write_run(tmp_path / "b", OUTCOMES[:3])
    for row in range(3):
        assert figures(whole, row) == figures(begun, row)
    assert figures(whole, 0) == {"rollouts": 0.0, "minutes": pytest.approx(0.025)}


def test_what_is_undefined_or_was_not_counted_has_no_value(tmp_path: Path) -> None:
    metrics = figures(write_run(tmp_path), 1)
    assert "bwt_gem" not in metrics  # one task has no earlier one
    assert "tokens" not in metrics  # of a version that did not count them
    assert metrics.keys() <= FORMULAS.keys()
    assert mean_kl({(1, "a"): 0.5}, 1, ["a", "b"]) is None
    assert mean_kl({(1, "a"): 0.5, (1, "b"): 0.25}, 1, ["a", "b", "a"]) == 0.375
    assert mean_kl({}, 0, []) is None


def test_a_row_is_tracked_with_its_figures_once_something_comes_after_it(tmp_path: Path) -> None:
    run = write_run(tmp_path, OUTCOMES[:3])
    records = read_run_records(run)
    names = [{name for metrics, _ in records.row(row) for name in metrics} for row in range(3)]
    assert ["minutes" in of_row for of_row in names] == [True, True, False]
    assert all("score/alpha" in of_row for of_row in names)
    complete = [metrics for metrics, _ in records.row(2, is_complete=True)]
    assert complete[-1] == figures(run, 2)
