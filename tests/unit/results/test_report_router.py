"""The tables of routers, from figures by hand."""

from pathlib import Path
from typing import Any

from fastslow.core.types import Metric
from fastslow.records.events import FiguresEvent
from fastslow.records.run_folder import RunDir
from fastslow.results.report import build_report, recompute_report
from fastslow.results.report.page import page as page_text
from tests.support.run_folder import report_json, write_run


def event(row: int, task: str, figures: dict[str, float], **numbers: Any) -> FiguresEvent:
    metrics = tuple(Metric(name, value, None, "formula") for name, value in figures.items())
    return FiguresEvent(row, "router", task, metrics, {"examples": 8.0, **numbers})


def figures(accuracy: float, routed: float, own: float, latest: float) -> dict[str, float]:
    router = {"surprisal/accuracy": accuracy, "surprisal/score": routed}
    return {"own/score": own, "latest/score": latest, **router}


def test_the_last_stage_is_shown_with_means_and_confusion(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    sent = "surprisal/sent/"
    limits = {"surprisal/accuracy/low": 0.25, "surprisal/accuracy/high": 0.75}
    with RunDir.open(run) as run_dir:
        run_dir.events.append(
            event(2, "alpha", figures(0.1, 0.1, 0.1, 0.1), **{sent + "alpha": 0.1}),
            event(3, "alpha", figures(0.0, 0.0, 0.0, 0.0), **{sent + "alpha": 0.0}),
            event(3, "alpha", figures(0.5, 0.25, 1.0, 0.0), **limits,
                  **{sent + "alpha": 0.5, sent + "beta": 0.5}),
            event(3, "beta", figures(1.0, 0.75, 0.5, 0.5),
                  **{sent + "alpha": 0.0, sent + "beta": 1.0}),
        )  # fmt: skip
    data = report_json(run)
    routed = [m for m in data["measured"] if m["kind"] == "router"]
    assert [(m["row"], m["of"]) for m in routed] == [(2, "alpha"), (3, "alpha"), (3, "beta")]
    assert routed[1]["figures"]["surprisal/accuracy"]["value"] == 0.5
    text = (run / "report.md").read_text()
    assert "## Inputs that do not name their task, after stage 3" in text
    assert "| surprisal | alpha | 8 | 0.50 [0.25, 0.75] | 0.25 | 1.00 | 0.00 |" in text
    assert "| surprisal | beta | 8 | 1.00 | 0.75 | 0.50 | 0.50 |" in text
    assert "| surprisal | mean of the tasks |  | 0.75 | 0.50 | 0.75 | 0.25 |" in text
    assert "of 1 on tasks whose inputs differ in shape is no achievement" in text
    assert "## Confusion of the routers after stage 3" in text
    assert "| router | inputs of | sent to alpha | sent to beta |" in text
    assert "| surprisal | alpha | 0.50 | 0.50 |" in text
    assert "| surprisal | beta | 0.00 | 1.00 |" in text
    assert "after stage 2" not in text
    assert "## router" not in text
    assert "<caption>Confusion of the routers" in page_text(build_report(run), ())
    assert recompute_report(run) == ()


def test_a_users_measure_of_an_older_run_that_is_called_so_breaks_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    with RunDir.open(run) as run_dir:
        none = Metric("their/accuracy", None, "not defined", "formula")
        run_dir.events.append(FiguresEvent(1, "router", "anything", (none,), {}))
    report_json(run)
    assert "| their | anything | 0 | - | - | - | - |" in (run / "report.md").read_text()


def test_without_a_router_there_is_no_table(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    report_json(run)
    assert "name their task" not in (run / "report.md").read_text()
