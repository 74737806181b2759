"""What a report says next to the matrix: noise, curves, drift, geometry, the plasticity probe."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastslow.core.types import Metric
from fastslow.records.events import NEUTRAL, CycleEvent, DriftEvent, FiguresEvent
from fastslow.records.run_folder import RunDir
from fastslow.results.report import build_report, recompute_report
from fastslow.results.report.page import page as page_text
from tests.support.run_folder import report_json, score_row, terminal, write_run


def test_repeats_of_the_base_give_each_task_a_noise_floor_and_retention_heeds_it(
    tmp_path: Path,
) -> None:
    run = write_run(tmp_path)
    alone = report_json(run)["per_task"]["alpha"]["noise_floor"]
    assert (alone["value"], alone["reason"]) == (None, "needs two base evaluations at least, got 1")
    with RunDir.open(run) as run_dir:
        for task in ("alpha", "beta", "gamma"):
            for example in range(8):
                made = score_row(run_dir.path.name, 0, task, example, float(task == "gamma"))
                run_dir.scores.append(replace(made, sample=replace(made.sample, sample=1)))
    data = report_json(run)
    floors = {task: data["per_task"][task]["noise_floor"]["value"] for task in data["tasks"]}
    assert floors == {"alpha": 0.125, "beta": 0.0, "gamma": 1.0}
    assert "noise floor 1" in data["metrics"]["retention_gain"]["reason"]
    assert "BWT is not informative" in data["bwt_warning"]
    assert "BWT is not informative" in (run / "report.md").read_text()


def test_scores_within_a_stage_are_points_of_its_learning_curve(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    with RunDir.open(run) as run_dir:
        for cycle in range(1, 5):  # four more cycles of the last stage, five points and its start
            run_dir.events.append(CycleEvent(2, cycle, {"slow": 64}, {"slow": 1.0}, {}))
        for cycle, digits in enumerate(("1000", "1100", "1100", "1110")):
            for example, digit in enumerate(digits):
                made = score_row(run_dir.path.name, 3, "gamma", example, float(digit))
                run_dir.scores.append(replace(made, cycle=cycle))
    curves = report_json(run)["curves"]
    assert curves[0]["at"] == [0, 96]
    assert curves[0]["scores"] == [0.125, 1.0]
    assert "at least five points" in curves[0]["sigmoid"]["sigmoid_asymptote"]["reason"]
    assert curves[2]["at"] == [0, 96, 160, 224, 288, 352]
    assert curves[2]["scores"] == [0.0, 0.25, 0.5, 0.5, 0.75, 1.0]  # on the four examples of all
    assert (curves[2]["n"], curves[2]["unit"]) == (4, "rollouts")
    assert curves[2]["threshold"]["value"] == 160
    fitted = curves[2]["sigmoid"]
    assert fitted["sigmoid_r2"]["value"] > 0.8
    assert fitted["sigmoid_asymptote"]["low"] <= fitted["sigmoid_asymptote"]["high"]
    assert "| 3 gamma | 0: 0.00, 96: 0.25" in (run / "report.md").read_text()


def test_drift_has_a_table_per_direction_with_both_prompts_and_neutral_prose(
    tmp_path: Path,
) -> None:
    run = write_run(tmp_path)
    with RunDir.open(run) as run_dir:
        for row in (1, 2, 3):
            for name in ("kl_razor", "entropy"):
                for task in ("alpha", "beta"):
                    run_dir.events.append(
                        DriftEvent(row, task, name, 0.5 * row, None, 8, "t", "with_text", 0.1),
                        DriftEvent(row, task, name, 0.25 * row, None, 8, "s", "without_text"),
                    )
        run_dir.events.append(
            DriftEvent(3, NEUTRAL, "neutral_ce_delta", 0.0625, None, 900, "", "without_text", 0.01)
        )
    data = report_json(run)
    razor = [d for d in data["drift"] if d["name"] == "kl_razor"]
    assert [(d["row"], d["text"], d["task"], d["value"]) for d in razor[:4]] == [
        (1, "with_text", "alpha", 0.5),
        (1, "with_text", "beta", 0.5),
        (1, "without_text", "alpha", 0.25),
        (1, "without_text", "beta", 0.25),
    ]
    # points: stage 2 (beta, razor 1) with alpha; stage 3 has none for gamma: one point, no parabola
    assert data["kl_fit"]["kl_fit_n"]["value"] == 1
    assert data["kl_fit"]["kl_fit_r2"]["value"] is None
    assert "needs four, got 1" in data["kl_fit"]["kl_fit_r2"]["reason"]
    text = (run / "report.md").read_text()
    assert "| 2 | seed prompt | 0.5000 | 0.5000 |" in text
    assert "| 3 | 0.0625 (0.0100) |" in text


def test_geometry_overlap_and_proxies_have_tables_with_reasons_for_what_is_undefined(
    tmp_path: Path,
) -> None:
    run = write_run(tmp_path)
    report_json(run)
    assert "## Geometry" not in (run / "report.md").read_text()
    rank = Metric("stable_rank", 1.5, None, "sum s^2 / s_1^2")
    none = Metric("stable_rank", None, "the update is zero everywhere", "sum s^2 / s_1^2")
    shared = Metric("jaccard_top1", 0.25, None, "both / either")
    with RunDir.open(run) as run_dir:
        run_dir.events.append(
            FiguresEvent(1, "geometry", "1 alpha", (rank,), {"num_weights": 8.0}),
            FiguresEvent(2, "geometry", "2 beta", (none,), {"num_weights": 8.0}),
            FiguresEvent(2, "overlap", "1 alpha and 2 beta", (shared,), {"chance": 0.005}),
            FiguresEvent(0, "proxies", "some inputs", (rank,), {"samples": 40.0}),
        )
    data = report_json(run)["measured"]
    assert [(m["kind"], m["row"], m["of"]) for m in data] == [
        ("geometry", 1, "1 alpha"),
        ("geometry", 2, "2 beta"),
        ("overlap", 2, "1 alpha and 2 beta"),
        ("proxies", 0, "some inputs"),
    ]
    assert data[0]["figures"]["stable_rank"]["value"] == 1.5
    text = (run / "report.md").read_text()
    assert "| `stable_rank` | 1.5000 | the update is zero everywhere | `sum s^2 / s_1^2` |" in text
    assert "| 1 alpha and 2 beta | 0.2500 | 0.0050 |" in text
    assert "## Proxies of plasticity" in text


def test_a_measure_of_the_users_own_is_a_table_under_its_name(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    hostile = "Score matrix | <script>x</script> \x1b[31m"
    value, none = Metric("share", 0.5, None, "a / b"), Metric("share", None, "b is 0", "a / b")
    with RunDir.open(run) as run_dir:
        run_dir.events.append(
            FiguresEvent(1, "my_measure", "test inputs", (none,), {}),
            FiguresEvent(1, "my_measure", "test inputs", (value,), {"n": 8.0}),  # again
            FiguresEvent(2, "my_measure", "test inputs", (none, replace(value, name="rank")), {}),
            FiguresEvent(0, hostile, hostile, (replace(value, name=hostile),), {}),
            FiguresEvent(3, "signals", "alpha", (value,), {}),
            FiguresEvent(3, "nothing", "alpha", (), {}),
            FiguresEvent(3, "overlap", "no figures", (), {}),
        )
    data = report_json(run)
    own = [m for m in data["measured"] if m["kind"] == "my_measure"]
    assert [(m["row"], m["figures"]["share"]["value"]) for m in own] == [(1, 0.5), (2, None)]
    assert {m["kind"] for m in data["measured"]} >= {hostile, "signals", "nothing"}
    text = (run / "report.md").read_text()
    assert "## my_measure\n\n| row | measured on | share | rank |" in text
    assert "| 1 | test inputs | 0.5000 | - |" in text
    assert "| 2 | test inputs | b is 0 | 0.5000 |" in text
    assert "share: a / b. rank: a / b." in text
    assert "## signals" in text
    assert "## nothing" not in text
    assert "| no figures | - | - |" in text
    assert text.count("## Score matrix") == 2  # ours, and the hostile name, escaped
    assert "<script>" not in text.replace("`Score matrix \\| <script>", "")
    assert "\x1b" not in text + terminal(run)
    page = page_text(build_report(run), ())
    assert "<caption>my_measure</caption>" in page
    assert "<caption>Score matrix | &lt;script&gt;" in page
    assert recompute_report(run) == ()


def write_curve(run: Path, row: int, rows: Sequence[str], **changed: Any) -> None:
    kept = {
        "task": "delta",
        "version": "delta@1",
        "row": row,
        "seed": 0,
        "problems": 8,
        "settings": {"kind": "sft", "adapter": "merge", "updates": 5},
        "weights": f"w{row}",
        "examples": [f"v{i}" for i in range(len(rows[0]))],
        "at": [0, 5],
        "scores": [[float(digit) for digit in digits] for digits in rows],
        "rollouts": 8,
        "seconds": 3.0,
    }
    folder = run / "probe" / "delta"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"row-{row:03d}-seed-0.json").write_text(json.dumps(kept | changed))


def test_what_a_probe_says_is_as_worked_by_hand(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write_curve(run, 0, ("0000", "1110"))
    assert report_json(run)["probes"] == []  # the base alone says nothing
    write_curve(run, 3, ("1000", "1100"))
    data = report_json(run)
    [probe] = data["probes"]
    figures = {name: found["value"] for name, found in probe["figures"].items()}
    expected = {
        "probe_start_difference": 0.25,
        "probe_end_difference": -0.25,
        "probe_gain": 0.25,
        "probe_gain_base": 0.75,
        "probe_gain_ratio": 0.333333,
        "probe_auc": 1.875,
        "probe_stalled": 0.0,
        "probe_steps_to_threshold": 5.0,
    }
    assert {name: figures[name] for name in expected} == expected
    gain = probe["figures"]["probe_gain"]
    assert gain["low"] <= 0.25 <= gain["high"]
    assert (probe["tuned"], probe["base"], probe["n"]) == ([[0.25, 0.5]], [[0.0, 0.75]], 4)
    assert data["evaluation"]["parts"]["probe"] == {"rollouts": 16, "seconds": 6.0, "reused": 0}
    assert data["seconds_by"]["evaluation"] == 12.0
    text = (run / "report.md").read_text()
    assert "from these weights: 0.25, 0.50; from the base: 0.00, 0.75" in text
    assert recompute_report(run) == ()


def test_curves_made_under_other_settings_are_not_compared(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    write_curve(run, 0, ("0000", "1110"), settings={"kind": "grpo", "adapter": "merge"})
    write_curve(run, 3, ("1000", "1100"))
    assert report_json(run)["probes"] == []


def test_a_base_curve_that_two_stages_were_probed_against_costs_once(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    for row, rows in ((0, ("0000", "1110")), (2, ("0000", "1100")), (3, ("1000", "1100"))):
        write_curve(run, row, rows)
    data = report_json(run)
    assert [probe["row"] for probe in data["probes"]] == [2, 3]
    assert data["evaluation"]["parts"]["probe"] == {"rollouts": 24, "seconds": 9.0, "reused": 0}


def test_a_planted_failure_is_said_and_a_gentle_run_is_not_accused(tmp_path: Path) -> None:
    learned = {"alpha": "1" * 32, "beta": "0" * 32}
    rows = [{"alpha": "0" * 32, "beta": "0" * 32}, learned]
    fresh = ("0" * 40, "1" * 30 + "0" * 10)

    def said(name: str, alpha: str, probe: str) -> tuple[str, dict[str, Any]]:
        last = {"alpha": alpha, "beta": "1" * 32}
        run = write_run(tmp_path / name, [*rows, last], ("alpha", "beta"))
        write_curve(run, 0, fresh)
        write_curve(run, 2, ("0" * 40, probe))
        data = report_json(run)
        return str(data["verdict"]), data

    verdict, data = said("destructive", "0" * 24 + "1" * 8, "0" * 36 + "1" * 4)
    change = data["per_task"]["alpha"]["change"]
    assert change["high"] < 0
    assert f"Dropped significantly: alpha {change['value']:.2f}" in verdict
    end = data["probes"][0]["figures"]["probe_end_difference"]
    assert (end["value"], end["high"] < 0) == (-0.65, True)
    assert "Lost plasticity on the probe delta, from the weights of row 2: -0.65 [" in verdict

    verdict, data = said("gentle", "1" * 31 + "0", "1" * 29 + "0" * 11)
    assert data["per_task"]["alpha"]["change"]["high"] > 0
    assert data["probes"][0]["figures"]["probe_end_difference"]["high"] >= 0
    assert "No significant drop on alpha" in verdict
    assert "No significant loss of plasticity on the probe delta" in verdict
    assert "Lost" not in verdict


def test_the_learning_curve_area_needs_a_score_after_every_update(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    found = report_json(run)["metrics"]["lca"]
    assert found["value"] is None
    assert found["reason"].startswith("not measured: scored after every 5 updates")
    assert "Chaudhry et al. 2019" in found["formula"]
    config = json.loads((run / "config.json").read_text())
    config["cycle"]["optimizer_steps"] = 1
    (run / "config.json").write_text(json.dumps(config))
    # one update a stage: base to learned is 1/8 to 1, 1/8 to 6/8 and 1/8 to 5/8
    found = report_json(run)["metrics"]["lca"]
    assert found["value"] == round((9 / 16 + 7 / 16 + 6 / 16) / 3, 6)
    assert "b = 1 " in found["formula"]
