"""What later stages did, what was answered and what completions took, worked by hand."""

from pathlib import Path

import pytest

from fastslow.records.events import CycleEvent, RunEvent
from fastslow.records.jsonl import RecordWriter
from fastslow.results.report import build_report
from fastslow.results.report.section import Report
from fastslow.results.report.sections.answers import Answers
from fastslow.results.report.sections.compute import Compute
from fastslow.results.report.sections.retention import ForgettingOnDrift, Retention
from tests.support.run_folder import OUTCOMES, write_run


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return build_report(write_run(tmp_path_factory.mktemp("runs")))


def rows(report: Report, kind: type[Retention | ForgettingOnDrift | Answers]) -> list[object]:
    """Series, kind, x and y of the figure's points, bars and interval ends."""
    drawing = report.section(kind).draw()
    assert drawing is not None
    return [tuple(row) for row in drawing.for_paper()[1]]


def test_every_earlier_task_has_a_point_after_each_later_stage(report: Report) -> None:
    points = report.section(Retention).points
    # alpha: eight right, then four, then one; beta: the same six both times; kl is row / 8
    assert [(p.task, p.row, p.change.mean, p.kl) for p in points] == [
        ("alpha", 2, -0.5, 0.25),
        ("alpha", 3, -0.875, 0.375),
        ("beta", 3, 0.0, 0.375),
    ]


def test_the_figures_draw_these_points_by_stage_and_by_drift(report: Report) -> None:
    for kind, places in ((Retention, (2.0, 3.0, 3.0)), (ForgettingOnDrift, (0.25, 0.375, 0.375))):
        points = [row for row in rows(report, kind) if row[2] == "point"]  # type: ignore[index]
        assert [row[1] for row in points] == ["alpha", "alpha", "beta"]  # type: ignore[index]
        assert tuple(row[3] for row in points) == places  # type: ignore[index]
        assert [row[4] for row in points] == [-0.5, -0.875, 0.0]  # type: ignore[index]


def test_a_run_with_nothing_to_forget_has_neither(tmp_path: Path) -> None:
    begun = build_report(write_run(tmp_path, OUTCOMES[:2]))
    assert begun.section(Retention).draw() is None
    assert begun.section(ForgettingOnDrift).draw() is None


def test_answers_before_and_after_are_shares_of_each_cell(report: Report) -> None:
    bars = [row[1:4] + row[6:] for row in rows(report, Answers)]  # type: ignore[index]
    # base: one right of eight; learned: all; end: one
    assert bars[:9] == [
        ("no", "bar", 0.0, "alpha: base", 0.875),
        ("yes", "bar", 0.875, "alpha: base", 0.125),
        ("others", "bar", 1.0, "alpha: base", 0.0),
        ("no", "bar", 0.0, "alpha: learned", 0.0),
        ("yes", "bar", 0.0, "alpha: learned", 1.0),
        ("others", "bar", 1.0, "alpha: learned", 0.0),
        ("no", "bar", 0.0, "alpha: end", 0.875),
        ("yes", "bar", 0.875, "alpha: end", 0.125),
        ("others", "bar", 1.0, "alpha: end", 0.0),
    ]
    # the last stage's task has no row between learned and end
    assert [bar[3] for bar in bars if bar[3].startswith("gamma")][::3] == [
        "gamma: base",
        "gamma: end",
    ]


def test_operations_are_factors_times_parameters_times_tokens(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    before = build_report(run).section(Compute)
    # 4 rows, 3 tasks, 8 examples, 2 tokens; slow completions were not counted, nor parameters
    assert before.costs == [("evaluation: drawn", 192, 2)]
    # an older folder says which model it was, by name
    assert (before.parameters, before.trainable) == (134_515_008, None)
    config = run / "config.json"
    config.write_text(config.read_text().replace("smollm2-135m-instruct", "elsewhere/model"))
    before = build_report(run).section(Compute)
    assert (before.parameters, before.trainable, before.draw()) == (None, None, None)
    assert "Parameters: not recorded; of them trained: not" in next(iter(before.tables())).note
    with RecordWriter(run / "events.jsonl") as events:
        events.append(RunEvent("finished", 100.0, None, None, 1000, 10))
    recorded = build_report(run).section(Compute)
    [cells] = next(iter(recorded.tables())).rows
    assert [cell.text for cell in cells[:3]] == ["evaluation: drawn", "192", "3.8e+05"]
    assert (recorded.parameters, recorded.trainable) == (1000, 10)
    assert "Parameters: 1,000; of them trained: 10." in next(iter(recorded.tables())).note


def test_slow_completions_count_where_every_phase_counted_them(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    lines = (
        (run / "events.jsonl")
        .read_text()
        .replace(
            '"rollouts": {"slow": 64}, "seconds": {"slow": 20.0}, "metrics": {}',
            '"rollouts": {"slow": 64}, "seconds": {"slow": 20.0}, '
            '"metrics": {"slow/completion_tokens": 2.5}',
        )
    )
    (run / "events.jsonl").write_text(lines)
    costs = build_report(run).section(Compute).costs
    assert costs[:2] == [("slow: drawn", 480, 2), ("slow: trained on, at most", 480, 6)]
    with RecordWriter(run / "events.jsonl") as events:
        events.append(CycleEvent(2, 1, {"slow": 8}, {"slow": 1.0}, {}))
    assert build_report(run).section(Compute).costs == [("evaluation: drawn", 192, 2)]
