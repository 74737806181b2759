"""Tables of concentration, keep curve, bridge and adherence, and their outcomes, by hand."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fastslow.core.types import Metric
from fastslow.records.events import FiguresEvent
from fastslow.records.run_folder import RunDir
from fastslow.results.report import build_report, recompute_report
from tests.support.run_folder import report_json, write_run


def event(
    row: int, kind: str, of: str, figures: dict[str, float], numbers: dict[str, float]
) -> FiguresEvent:
    metrics = tuple(Metric(name, value, None, "formula") for name, value in figures.items())
    return FiguresEvent(row, kind, of, metrics, numbers)


def text_of(folder: Path, events: Sequence[FiguresEvent]) -> str:
    run = write_run(folder)
    with RunDir.open(run) as run_dir:
        run_dir.events.append(*events)
    report_json(run)
    assert recompute_report(run) == ()
    return (run / "report.md").read_text()


def concentration(row: int, top5: float, largest: float) -> FiguresEvent:
    figures = {
        "energy_top5_frac": top5,
        "energy_top5_null_lora": largest - 0.01,
        "energy_top5_null_lora_max": largest,
    }
    return event(row, "concentration", "the whole change", figures, {"gaussian_top5": 0.279})


@pytest.mark.parametrize(
    ("shares", "outcome"),
    [
        (((0.42, 0.36), (0.43, 0.36), (0.37, 0.36)), "yes. In 2 of 3 rows"),
        (((0.42, 0.36), (0.40, 0.36), (0.37, 0.36)), "undecided. In 1 of 3 rows"),
        (((0.40, 0.36), (0.30, 0.36), (0.37, 0.36)), "no. In 0 of 3 rows"),
    ],
)
def test_a_change_is_concentrated_if_it_exceeds_every_random_product_by_enough(
    tmp_path: Path, shares: Sequence[tuple[float, float]], outcome: str
) -> None:
    text = text_of(tmp_path, [concentration(i + 1, *pair) for i, pair in enumerate(shares)])
    top5, largest = shares[0]
    assert f"| 1 | 5 % | {top5:.2f} | {largest - 0.01:.2f} | {largest:.2f} | 0.28 |" in text
    assert f"Concentrated beyond low rank: {outcome}" in text


def keep_curve(row: int, random_low: float, scaled_low: float) -> FiguresEvent:
    figures = {"keep_top5": 0.8, "keep_top5_minus_random_energy": random_low + 0.05}
    numbers = {"top5/energy": 0.376}
    for arm, low in (("random_energy", random_low), ("scaled", scaled_low)):
        name = f"keep_top5_minus_{arm}"
        numbers |= {f"{name}/low": low, f"{name}/high": low + 0.1}
    return event(row, "keep_curve", "alpha", figures, numbers)


@pytest.mark.parametrize(
    ("lows", "outcome"),
    [
        (((0.01, 0.01), (0.01, 0.02), (-0.1, 0.01)), "Yes: at 5 %"),
        (((0.01, -0.01), (0.01, -0.02), (-0.1, 0.01)), "Partly: at 5 %"),
        (((0.01, 0.01), (-0.01, -0.02), (-0.1, 0.01)), "Undecided: at 5 %"),
        (((-0.01, 0.01), (-0.01, -0.02), (-0.1, 0.01)), "No: at 5 %"),
    ],
)
def test_the_place_matters_if_the_largest_keep_more_than_parts_of_their_energy(
    tmp_path: Path, lows: Sequence[tuple[float, float]], outcome: str
) -> None:
    text = text_of(tmp_path, [keep_curve(i + 1, *pair) for i, pair in enumerate(lows)])
    assert f"Does the place matter? {outcome}" in text
    assert "| 1 | alpha | 5 % | 0.38 | 0.80 | - | - | - | - |" in text


def bridge(row: int, low: float, high: float, p: float) -> FiguresEvent:
    figures = {"bridge": (low + high) / 2, "gradient": 0.12, "control": 0.11}
    return event(
        row, "bridge", "alpha", figures, {"bridge/low": low, "bridge/high": high, "bridge/p": p}
    )


@pytest.mark.parametrize(
    ("intervals", "outcome"),
    [
        (((0.01, 0.1, 0.001), (0.02, 0.1, 0.01), (-0.1, 0.1, 0.5)), "yes. "),
        (((0.01, 0.1, 0.001), (0.02, 0.1, 0.02), (-0.1, 0.1, 0.5)), "undecided. "),
        (((-0.05, 0.05, 0.5), (0.0, 0.04, 0.2), (-0.01, 0.01, 0.5)), "no. "),
        (((-0.06, 0.05, 0.5), (0.0, 0.04, 0.2), (-0.01, 0.01, 0.5)), "undecided. "),
    ],
)
def test_changes_are_on_sparse_units_if_the_bridge_is_above_its_control_and_the_null(
    tmp_path: Path, intervals: Sequence[tuple[float, float, float]], outcome: str
) -> None:
    text = text_of(tmp_path, [bridge(i + 1, *numbers) for i, numbers in enumerate(intervals)])
    assert f"In sparsely active regions: {outcome}The bridge is above 0" in text
    low, high, p = intervals[0]
    assert f"| 1 | alpha | sparse | {(low + high) / 2:.2f} [{low:.2f}, {high:.2f}] | 0.12" in text
    assert f"| {p:.3f} |" in text


def test_a_figure_without_a_table_of_its_own_stands_with_its_interval(tmp_path: Path) -> None:
    numbers = {"reference_spread/low": 0.25, "reference_spread/high": 1.0}
    figures = {"reference_spread": 0.5, "reference_spread_spearman": -0.75}
    mine = event(2, "mine", "beta", {"size": 3.0}, {"size/low": 2.0})  # half an interval is none
    text = text_of(tmp_path, [event(1, "reference_spread", "alpha", figures, numbers), mine])
    assert "| 1 | alpha | 0.5000 [0.25, 1.00] | -0.7500 |" in text
    assert "| 2 | beta | 3.0000 |" in text


def adherence(row: int, scores: Sequence[float], **numbers: float) -> FiguresEvent:
    name = "adherence_flipped"
    by_input = {f"{name}/of/q{index}": score for index, score in enumerate(scores)}
    figures = {"text_influence": 0.5, "text_influence_base": 0.25, name: sum(scores) / len(scores)}
    return event(row, "adherence", "alpha", figures, {**by_input, **numbers})


def test_adherence_is_compared_with_the_base_input_by_input(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    with RunDir.open(run) as run_dir:
        run_dir.events.append(
            adherence(0, [1, 1, 1, 0], answers=2.0), adherence(2, [1, 0, 0, 0, 1], answers=2.0)
        )
    data = report_json(run)
    [change] = data["adherence"]
    assert (change["row"], change["task"]) == (2, "alpha")
    flipped: dict[str, Any] = change["changes"]["adherence_flipped"]
    assert (flipped["n"], flipped["mean"], flipped["p_value"]) == (4, -0.5, 0.5)
    text = (run / "report.md").read_text()
    assert "| 0 | alpha | 0.50 | 0.25 | 0.75 | - |" in text
    assert "| 2 | alpha | 0.50 | 0.25 | 0.40 | -0.50 [" in text
    assert "alpha: with two answers, keeping to the true one" in text


def test_reasons_stand_once_and_measures_of_older_runs_with_these_names_break_nothing(
    tmp_path: Path,
) -> None:
    kinds = ("concentration", "keep_curve", "bridge", "adherence")
    names = ("keep_top5", "keep_rest5", "keep_random5")
    none = tuple(Metric(name, None, "does not lower the loss", "formula") for name in names)
    theirs = [FiguresEvent(1, kind, "x", (Metric("mine", 1.0, None, "f"),), {}) for kind in kinds]
    undefined = FiguresEvent(2, "keep_curve", "alpha", none, {"top5/energy": 0.0})
    text = text_of(tmp_path, [*theirs, undefined])
    assert "| 2 | alpha | 5 % | 0.00 | does not lower the loss | - | - | - | - | - | - |" in text
    for outcome in (
        "Concentrated beyond low rank: not measured.",
        "Does the place matter? Not measured at 5 %.",
        "In sparsely active regions: not measured.",
    ):
        assert outcome in text
    assert build_report(write_run(tmp_path / "without")).tables()


def test_without_them_there_are_no_tables_and_no_keys(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    assert "adherence" not in report_json(run)
    text = (run / "report.md").read_text()
    assert not any(words in text for words in ("of the whole change", "the place", "sparsely"))
