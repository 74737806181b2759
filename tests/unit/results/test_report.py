"""The figures and sentences of a report, worked by hand on a small run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from fastslow.results.report import build_report
from fastslow.results.report.verdict import verdict
from tests.support.run_folder import OUTCOMES, report_json, terminal, write_run


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
        "Learned 2 of 3 tasks beyond the base (alpha, beta); learning accuracy 0.79 "
        "(learning_accuracy). Chance is not known: the run did not grade guessing. "
        "Forgot 0.44 on average (forgetting_chaudhry); backward transfer "
        "-0.44 [-0.56, -0.32] (bwt_gem). Dropped significantly: alpha -0.88 [-1.00, -0.63]. "
        "No significant drop on beta, but one below 0.32 could have been missed."
    )


def kept(**changes: str) -> Sequence[Mapping[str, str]]:
    """The usual outcomes with another last row."""
    return (*OUTCOMES[:3], {**OUTCOMES[3], **changes})


def test_no_drop_is_never_reported_without_the_drop_that_could_have_been_missed(
    tmp_path: Path,
) -> None:
    said = verdict(build_report(write_run(tmp_path, kept(alpha="11111111"))))
    assert "Dropped" not in said
    assert "No significant drop on alpha, beta, but one below 0.32 could have been missed" in said
    assert "Forgot 0.00 on average" in said


def test_scores_that_rose_after_learning_are_not_called_forgetting(tmp_path: Path) -> None:
    said = verdict(build_report(write_run(tmp_path, kept(alpha="11111111", beta="11111111"))))
    assert "Ended above the earlier best by 0.12 on average (forgetting_chaudhry)" in said
    assert "backward transfer +0.12" in said


def test_a_run_that_learned_nothing_does_not_boast_of_keeping_it(tmp_path: Path) -> None:
    said = verdict(build_report(write_run(tmp_path, [OUTCOMES[0]] * 4)))
    assert said.startswith("Learned 0 of 3 tasks beyond the base; learning accuracy 0.04")
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


def test_a_run_without_prompts_says_that_seed_prompts_are_deployed(tmp_path: Path) -> None:
    run = write_run(tmp_path, OUTCOMES[:1])
    report_json(run)
    assert "every task is deployed with its seed prompt" in (run / "report.md").read_text()
    assert "every task is deployed with its seed prompt" in terminal(run)


@pytest.mark.parametrize(
    ("skipped", "equal", "sentence"),
    [
        ((5, 5, 5), (1.0, 1.0, 1.0), "0 of 15 updates were made: all rewards of every group were"),
        ((0, 2, 0), (0.2, 1.0, 0.1), "13 of 15 updates were made: in the others all rewards"),
        ((0, 2, 0), (0.2, 0.5, 0.1), "13 of 15 updates were made: in the others no group had"),
        ((0, 0, 0), (0.2, 0.5, 0.1), None),
    ],
)
def test_updates_that_were_not_made_are_in_the_verdict_with_their_reason(
    tmp_path: Path,
    skipped: tuple[int, ...],
    equal: tuple[float, ...],
    sentence: str | None,
) -> None:
    run = write_run(tmp_path)
    with (run / "events.jsonl").open("a") as file:
        for stage, (number, share) in enumerate(zip(skipped, equal, strict=True)):
            metrics = {"slow/skipped_updates": number, "slow/zero_variance_frac": share}
            event = {"event": "cycle", "stage": stage, "cycle": 0, "rollouts": {}, "seconds": {}}
            file.write(json.dumps(event | {"metrics": metrics}) + "\n")
    text = verdict(build_report(run))
    assert "updates were made" not in text if sentence is None else sentence in text
