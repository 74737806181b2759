import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fastslow.errors import CheckpointError
from fastslow.prompts import Demonstration, PromptProgram
from fastslow.records import (
    NEUTRAL,
    CycleEvent,
    DriftEvent,
    EvaluationEvent,
    FiguresEvent,
    RecordWriter,
    ReoptimizedEvent,
    ShrinkEvent,
    TextEvent,
    read_events,
)
from fastslow.report import build_report, recompute_report, render_terminal, write_report
from fastslow.report.files import json_text
from fastslow.report.markdown import markdown
from fastslow.report.tables import verdict
from fastslow.report.writing import write_files
from fastslow.rundir import RunDir
from fastslow.types import Metric, PromptPolicy
from tests.unit.run_folder import OUTCOMES, score_row, text_of, write_run

HOSTILE = "```\n# Owned\n[red]loud[/red] <script>x</script> \x1b[31mESC\x07 | a | \u202e `````"


def report_json(run: Path) -> dict[str, Any]:
    """Content of report.json. As `write_report`, without figures and page."""
    report = build_report(run)
    texts = {"report.md": markdown(report), "report.json": json_text(report)}
    write_files(run, {name: text.encode() for name, text in texts.items()})
    data: dict[str, Any] = json.loads(texts["report.json"])
    return data


def terminal(run: Path, width: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(render_terminal(build_report(run)))
    return out.getvalue()


def test_every_number_of_a_small_report_is_as_worked_by_hand(tmp_path: Path) -> None:
    data = report_json(write_run(tmp_path))
    assert data["tasks"] == ["alpha", "beta", "gamma"]
    assert data["scores"] == [
        [0.125, 0.0, 0.0],
        [1.0, 0.125, 0.0],
        [0.5, 0.75, 0.125],
        [0.125, 0.75, 0.625],
    ]
    by_hand = {
        "average_accuracy": 0.5,
        "learning_accuracy": 0.791667,
        "average_incremental_accuracy": 0.708333,
        "bwt_gem": -0.4375,
        "bwt_trace": -0.291667,
        "bwt_diaz": -0.458333,
        "fwt_gem": 0.125,
        "forgetting_chaudhry": 0.4375,
        "min_acc": 0.4375,
        "wc_acc": 0.5,
        "retention_gain": 0.5,
    }
    assert {name: data["metrics"][name]["value"] for name in by_hand} == by_hand
    assert data["metrics"]["intransigence"]["value"] is None
    assert "needs a reference run" in data["metrics"]["intransigence"]["reason"]
    assert data["rollouts"] == {"fast": 120, "slow": 192, "evaluation": 96}
    assert data["seconds_by"] == {"fast": 30.0, "slow": 60.0, "evaluation": 6.0}
    assert data["seconds"] == 100.0
    assert [s["cycles"] for s in data["stages"]] == [1, 1, 1]
    assert [s["metrics"]["forgetting_chaudhry"]["value"] for s in data["stages"]] == [
        None,
        0.5,
        0.4375,
    ]


def test_what_reflection_cost_is_summed_and_what_is_not_known_stays_unknown(
    tmp_path: Path,
) -> None:
    run = write_run(tmp_path)
    assert report_json(run)["reflection"] is None
    assert "Reflection LM" not in (run / "report.md").read_text()
    asked = {"calls": 3, "failures": 1, "prompt_tokens": 900, "completion_tokens": 70, "away": 0}
    figures = {f"fast/reflection_{name}": float(value) for name, value in asked.items()}
    with RunDir.open(run) as run_dir:
        for away, cost in ((0.0, {"fast/reflection_cost_usd": 0.5}), (1.0, {})):
            metrics = {**figures, **cost, "fast/reflection_away": away}
            run_dir.events.append(CycleEvent(0, 1, {"fast": 0}, {"fast": 0.0}, metrics))
    assert report_json(run)["reflection"] == {
        "calls": 6,
        "failures": 2,
        "prompt_tokens": 1800,
        "completion_tokens": 140,
        "cost_usd": None,
        "phases": 2,
        "away": 1,
    }
    assert "| 6 | 2 | 1800 | 140 | - |" in (run / "report.md").read_text()


def test_intervals_and_paired_differences_are_as_worked_by_hand(tmp_path: Path) -> None:
    data = report_json(write_run(tmp_path))
    # 1 of 8: centre (1/8 + 1.96^2/16) / (1 + 1.96^2/8) = 0.246656, half width 0.224239
    assert data["cells"][0][0] == {
        "score": 0.125,
        "interval": {"low": 0.022417, "high": 0.470895, "method": "wilson"},
        "n": 8,
        "prompt_policy": "seed",
        "phase": "unseen",
    }
    # seven of eight fell from 1 to 0: sd = sqrt(0.125), SE = 0.125, McNemar p = 2 / 2^7
    assert data["per_task"]["alpha"]["change"] == {
        "value": -0.875,
        "n": 8,
        "se": 0.125,
        "low": -1.0,
        "high": -0.63,
        "p_value": 0.015625,
        "smallest_detectable": 0.35,
        "reason": None,
    }
    assert data["per_task"]["beta"]["change"]["reason"] == "no example changed"
    assert data["per_task"]["beta"]["change"]["smallest_detectable"] == 0.324416
    assert data["per_task"]["gamma"]["change"]["value"] is None
    # SE of the mean of two tasks: sqrt(0.125^2 + 0) / 2 = 0.0625
    assert data["intervals"] == {"bwt_gem": {"low": -0.56, "high": -0.315, "method": "normal"}}


def test_the_verdict_names_what_was_learned_forgotten_and_could_have_been_missed(
    tmp_path: Path,
) -> None:
    assert verdict(build_report(write_run(tmp_path))) == (
        "Learned 2 of 3 tasks beyond chance (alpha, beta); learning accuracy 0.79 "
        "(learning_accuracy). Forgot 0.44 on average (forgetting_chaudhry); backward transfer "
        "-0.44 [-0.56, -0.32] (bwt_gem). Dropped beyond chance: alpha -0.88 [-1.00, -0.63]. "
        "No drop beyond chance on beta, but one below 0.32 could have been missed."
    )


def kept(**changes: str) -> Sequence[Mapping[str, str]]:
    """The usual outcomes with another last row."""
    return (*OUTCOMES[:3], {**OUTCOMES[3], **changes})


def test_no_drop_is_never_reported_without_the_drop_that_could_have_been_missed(
    tmp_path: Path,
) -> None:
    said = verdict(build_report(write_run(tmp_path, kept(alpha="11111111"))))
    assert "Dropped" not in said
    assert "No drop beyond chance on alpha, beta, but one below 0.32 could have been missed" in said
    assert "Forgot 0.00 on average" in said


def test_scores_that_rose_after_learning_are_not_called_forgetting(tmp_path: Path) -> None:
    said = verdict(build_report(write_run(tmp_path, kept(alpha="11111111", beta="11111111"))))
    assert "Ended above the earlier best by 0.12 on average (forgetting_chaudhry)" in said
    assert "backward transfer +0.12" in said


def test_a_run_that_learned_nothing_does_not_boast_of_keeping_it(tmp_path: Path) -> None:
    said = verdict(build_report(write_run(tmp_path, [OUTCOMES[0]] * 4)))
    assert said.startswith("Learned 0 of 3 tasks beyond chance; learning accuracy 0.04")
    assert "With nothing learned, forgetting says nothing." in said


def test_one_stage_has_no_forgetting_and_the_report_says_so(tmp_path: Path) -> None:
    rows = [{"alpha": row["alpha"]} for row in OUTCOMES[:2]]
    run = write_run(tmp_path, rows, ("alpha",))
    reason = "needs at least two stages, this run has one"
    assert f"Forgetting is not measured: {reason}." in verdict(build_report(run))
    assert report_json(run)["metrics"]["bwt_gem"]["reason"] == reason
    assert reason in (run / "report.md").read_text()


def test_a_run_that_was_cut_off_is_reported_as_far_as_it_got(tmp_path: Path) -> None:
    run = write_run(tmp_path, OUTCOMES[:3])
    data = report_json(run)
    assert data["state"] == "running"
    assert data["scores"][3] == [None, None, None]
    assert data["metrics"]["bwt_gem"]["reason"] == "not measured: task 'alpha' in row 3"
    assert data["per_task"]["alpha"]["change"]["reason"] == "not measured: row 3"
    assert data["stages"][1]["metrics"]["forgetting_chaudhry"]["value"] == 0.5
    assert data["seconds"] == 64.5
    assert data["verdict"].startswith("The run is running: 3 of 4 rows of the matrix are measured.")
    assert "not measured" in terminal(run)


def test_held_out_tasks_are_shown_but_enter_no_metric(tmp_path: Path) -> None:
    rows = [{**row, "probe": "11110000"} for row in OUTCOMES]
    data = report_json(write_run(tmp_path / "with", rows, held_out=("probe",)))
    plain = report_json(write_run(tmp_path / "without"))
    assert data["tasks"][-1] == "probe"
    assert data["metrics"] == plain["metrics"]
    assert data["cells"][3][3]["phase"] == "held_out"
    assert data["per_task"]["probe"]["change"]["reason"] == "held out: no stage trains on it"
    assert data["per_task"]["probe"]["net"]["value"] == 0.0


def test_a_task_visited_twice_leaves_scores_but_no_transfer(tmp_path: Path) -> None:
    tasks = ("alpha", "beta")
    rows = [{task: row[task] for task in tasks} for row in OUTCOMES]
    data = report_json(write_run(tmp_path, rows, ("alpha", "beta", "alpha")))
    assert data["metrics"]["forgetting_chaudhry"]["value"] is None
    assert "visited by stages 1 and 3" in data["verdict"]
    assert data["per_task"]["alpha"]["learned_row"] == 3
    assert data["cells"][1][0]["phase"] == data["cells"][3][0]["phase"] == "learned"


def test_the_same_files_give_the_same_bytes_wherever_they_lie(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    first = [path.read_bytes() for path in write_report(run)]
    copy = tmp_path / "elsewhere"
    shutil.copytree(run, copy)
    for path in copy.glob("report.*"):
        path.unlink()
    assert [path.read_bytes() for path in write_report(copy)] == first
    assert not list(copy.glob("*.tmp"))


def test_scores_csv_has_one_line_per_cell(tmp_path: Path) -> None:
    run = write_run(tmp_path, OUTCOMES[:3])
    write_report(run)
    with (run / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert rows[3] | {"row": "1", "after": "alpha", "task": "alpha", "score": "1.000000"} == rows[3]
    assert (rows[11]["score"], rows[11]["n"]) == ("", "0")


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


def test_what_is_no_run_folder_or_damaged_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"run\.json: cannot be read"):
        build_report(tmp_path)
    run = write_run(tmp_path)
    with (run / "events.jsonl").open("a") as file:
        file.write("garbage\n")
    with pytest.raises(CheckpointError, match=r"events\.jsonl:\d+: not a record"):
        build_report(run)


def hostile_run(tmp_path: Path) -> Path:
    run = write_run(tmp_path)
    program = PromptProgram(HOSTILE, (Demonstration(HOSTILE, HOSTILE + "\ud800"),))
    with RunDir.open(run) as run_dir:
        run_dir.events.append(
            TextEvent(2, "gamma", "live", program, None, 0),
            DriftEvent(3, "gamma", "kl_fst", None, HOSTILE, 0, program.text_hash),
        )
    return run


def test_what_a_channel_noted_is_in_the_report(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    event = CycleEvent(1, 0, {"fast": 1}, {"fast": 0.0}, {}, ("stayed away: \x1b[31m`code`",))
    with RecordWriter(run / "events.jsonl") as events:
        events.append(event)
    assert read_events(run / "events.jsonl")[-1] == event
    (note,) = report_json(run)["notes"]
    assert note == {"stage": 1, "cycle": 0, "channel": "fast", "text": event.notes[0]}
    for text in ((run / "report.md").read_text(), terminal(run)):
        assert "Notes" in text
        assert "stayed away" in text
        assert "\x1b" not in text


def test_hostile_text_cannot_leave_its_code_block_in_markdown(tmp_path: Path) -> None:
    run = hostile_run(tmp_path)
    report_json(run)
    text = (run / "report.md").read_text(encoding="utf-8")
    assert all(c == "\n" or c.isprintable() for c in text)
    fence: str | None = None
    inside: list[str] = []
    outside: list[str] = []
    for line in text.splitlines():
        found = re.match(r"^(`{3,})(text)?$", line)
        if found and fence is None:
            fence = found[1]
        elif found and len(found[1]) >= len(fence or "") and not found[2]:
            fence = None
        else:
            (inside if fence else outside).append(line)
    assert fence is None
    assert "# Owned" in inside
    assert "# Owned" not in outside
    assert not any("<script>" in line for line in outside)
    columns = {
        line.count(" | ") for line in outside if line.startswith("| 3 | deployed text | 0.3750")
    }
    assert columns == {4}


def test_hostile_text_cannot_reach_the_terminal(tmp_path: Path) -> None:
    shown = terminal(hostile_run(tmp_path))
    assert all(c == "\n" or c.isprintable() for c in shown)
    assert "[red]loud[/red]" in shown
    assert "\\x1b[31mESC" in shown


def test_report_json_keeps_hostile_text_whole(tmp_path: Path) -> None:
    data = report_json(hostile_run(tmp_path))
    assert data["prompts"]["gamma"]["instruction"] == HOSTILE
    assert data["prompts"]["gamma"]["validation_mean"] is None
    assert data["prompts"]["alpha"]["demonstrations"] == [
        {"question": "alpha?", "answer": "alpha!"}
    ]


def test_the_terminal_shows_what_the_issue_asks_for(tmp_path: Path) -> None:
    shown = terminal(write_run(tmp_path))
    assert shown.startswith("Learned 2 of 3 tasks")
    for word in (
        "0 base",
        "1.00*",
        "(0.12)",
        "forgetting_chaudhry",
        "bwt_gem",
        "fwt_gem",
        "kl_fst",
        "minutes",
        "fast + slow",
        "312",
        "Answer alpha.",
        "learned in the last stage",
    ):
        assert word in shown, word


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_terminal_report_fits_its_width(tmp_path: Path, width: int) -> None:
    assert max(map(len, terminal(write_run(tmp_path), width).splitlines())) <= width


def test_every_key_of_report_json_is_documented(tmp_path: Path) -> None:
    data = report_json(write_run(tmp_path))
    schema = (Path(__file__).parents[2] / "docs" / "report-schema.md").read_text()
    keys = {*data, *data["cells"][0][0], *data["per_task"]["alpha"], *data["stages"][0]}
    keys |= {*data["per_task"]["alpha"]["change"], *data["drift"][0], *data["prompts"]["alpha"]}
    keys |= set(data["metrics"]["bwt_gem"])
    assert {key for key in keys if f"`{key}`" not in schema} == set()


def test_what_shrinking_gave_up_and_saved_is_in_every_form_of_the_report(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    event = ShrinkEvent(
        stage=1,
        task="beta",
        share=0.95,
        factor=0.4,
        reason=None,
        validation_start=0.25,
        validation_before=0.75,
        validation_after=0.74,
        validation_n=32,
        kl_before=0.5,
        kl_after=0.125,
        earlier_before={"alpha": 0.5},
        earlier_after={"alpha": 0.4},
        rollouts=300,
        seconds=7.0,
    )
    before = report_json(run)
    with RunDir.open(run) as run_dir:
        run_dir.events.append(
            replace(event, factor=1.0, reason="no gain", earlier_before={}, rollouts=0, seconds=0),
            event,  # the stage was measured again after a stop
        )
    data = report_json(run)
    assert before["shrink"] == []
    assert data["shrink"] == [
        {
            "stage": 1,
            "task": "beta",
            "share": 0.95,
            "factor": 0.4,
            "reason": None,
            "validation": {"start": 0.25, "before": 0.75, "after": 0.74, "n": 32},
            "kl_fst": {"before": 0.5, "after": 0.125},
            "earlier": {"alpha": {"before": 0.5, "after": 0.4}},
            "rollouts": 300,
            "seconds": 7.0,
        }
    ]
    assert data["rollouts"]["slow"] == before["rollouts"]["slow"] + 300
    assert data["seconds_by"]["slow"] == before["seconds_by"]["slow"] + 7
    row = "| 2 beta | 0.4 | 0.25 | 0.75 | 0.74 | 0.98 | 0.5000 | 0.1250 | alpha -0.10 |"
    assert row in (run / "report.md").read_text()
    assert "Shrink" in terminal(run, 160)
    assert "alpha -0.10" in terminal(run, 160)


def test_a_run_without_texts_says_that_seed_texts_are_deployed(tmp_path: Path) -> None:
    run = write_run(tmp_path, OUTCOMES[:1])
    report_json(run)
    assert "every task is deployed with its seed text" in (run / "report.md").read_text()
    assert "every task is deployed with its seed text" in terminal(run)


WITHOUT_MODELS = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "transformers", "trl", "peft", "dspy", "mlflow"}:
            raise ImportError(f"{name} is not installed here")

sys.meta_path.insert(0, Blocked())
from fastslow.cli import main
sys.exit(main(["report", sys.argv[1], "--recompute"]))
"""


def test_a_copied_run_is_recomputed_to_the_same_bytes_where_no_model_could_be_loaded(
    tmp_path: Path,
) -> None:
    run = write_run(tmp_path / "runs")
    report_json(run)
    copy = tmp_path / "elsewhere"
    shutil.copytree(run, copy)
    (copy / "report.md").unlink()

    def recomputed() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", WITHOUT_MODELS, str(copy)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            timeout=60,
        )

    done = recomputed()
    assert done.returncode == 0, done.stderr
    assert "byte-identical" in done.stdout
    assert not (copy / "report.md").exists()  # it only looks


def test_recomputing_names_what_report_json_says_otherwise(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    report_json(run)
    path = run / "report.json"
    data = json.loads(path.read_text())
    data["metrics"]["bwt_gem"]["value"] = 0.25
    path.write_text(json.dumps(data))
    assert recompute_report(run) == ("metrics.bwt_gem.value: 0.25 -> -0.4375",)
    path.write_text(json.dumps(json.loads(json_text(build_report(run)))))
    assert recompute_report(run) == ("the layout: not our writer's",)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"report\.json: cannot be read, .*fastslow report"):
        recompute_report(run)


def replay(run: Path, *cells: tuple[int, str, PromptPolicy, str]) -> None:
    """Write cells that the headline matrix does not have: row, task, role, digits."""
    with RunDir.open(run) as run_dir:
        for row, task, role, digits in cells:
            for example, digit in enumerate(digits):
                made = score_row(run_dir.path.name, row, task, example, float(digit))
                text = PromptProgram(f"{task}: ") if role == "seed" else text_of(task)
                sample = replace(made.sample, prompt_policy=role, text_hash=text.text_hash)
                run_dir.scores.append(replace(made, sample=sample))


def test_the_channel_split_of_a_task_is_as_worked_by_hand(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    data = report_json(run)["channel_split"]["alpha"]
    assert data["figures"]["gain_slow"]["value"] is None
    assert data["figures"]["gain_slow"]["reason"] == "not measured: learned_seed"

    replay(run, (0, "alpha", "own", "11000000"), (1, "alpha", "seed", "11110000"))
    split = report_json(run)["channel_split"]
    figures = {name: found["value"] for name, found in split["alpha"]["figures"].items()}
    # base 1/8; seed text on the learned weights 4/8, own text on the base 2/8, both 1; at last 1/8
    assert figures == {
        "gain_slow": 0.375,
        "gain_fast": 0.125,
        "gain_joint": 0.875,
        "synergy": 0.375,
        "tf": 0.875,
        "wf": 0.875,
        "pf": None,
        "ix": None,
        "wf_s": 0.875,
        "pf_s": None,
        "rec": None,
        "residual": None,
    }
    assert split["alpha"]["same_text"]
    assert "its part is 0 and wf = tf" in split["alpha"]["figures"]["pf"]["reason"]
    assert split["alpha"]["figures"]["wf"]["low"] == 0.63  # as the change, with the other sign
    gamma = split["gamma"]["figures"]["tf"]
    assert (gamma["value"], gamma["low"]) == (None, None)
    assert gamma["reason"] == "learned in the last stage: nothing came after"


def test_what_a_new_text_brings_back_is_said_with_its_budget(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    with RunDir.open(run) as run_dir:
        run_dir.events.append(ReoptimizedEvent("alpha", text_of("alpha"), 0.5, 32, 328))
    replay(run, (3, "alpha", "reopt", "11110000"))
    split = report_json(run)["channel_split"]["alpha"]
    assert split["budget"] == 328
    assert split["figures"]["rec"]["value"] == 0.375
    assert split["figures"]["residual"]["value"] == 0.5
    assert "in 328 rollouts" in split["figures"]["rec"]["formula"]
    assert report_json(run)["channel_split"]["beta"]["budget"] is None


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


def test_the_cost_of_every_part_of_the_evaluation_and_its_share_are_said(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    with RunDir.open(run) as run_dir:
        run_dir.events.append(EvaluationEvent(1, 16, 4.0, "channel_split", 8))
    data = report_json(run)
    assert data["evaluation"] == {
        "frac": 0.1,
        "parts": {
            "matrix": {"rollouts": 96, "seconds": 6.0, "reused": 0},
            "channel_split": {"rollouts": 16, "seconds": 4.0, "reused": 8},
        },
    }
    assert data["rollouts"]["evaluation"] == 112
    assert "| evaluation | 112 | 8 | 10.0 | 0.10 |" in (run / "report.md").read_text()


def test_a_sample_recorded_again_as_reused_is_no_damage(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    before = report_json(run)
    with RunDir.open(run) as run_dir:
        made = score_row(run_dir.path.name, 0, "alpha", 0, 0.0)
        run_dir.scores.append(replace(made, reused=True))
    assert report_json(run) == before


def test_drift_has_a_table_per_direction_with_both_texts_and_neutral_prose(tmp_path: Path) -> None:
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
    assert "| 2 | seed text | 0.5000 | 0.5000 |" in text
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
