"""What a report says of the channels: split, prompts evolved again, remedies, reflection, cost."""

from dataclasses import replace
from pathlib import Path

from fastslow.core.prompts import PromptProgram
from fastslow.core.types import PromptPolicy
from fastslow.records.events import CycleEvent, EvaluationEvent, RemedyEvent, ReoptimizedEvent
from fastslow.records.run_folder import RunDir
from tests.support.run_folder import TASKS, report_json, score_row, terminal, text_of, write_run


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


def test_what_shrinking_gave_up_and_saved_is_in_every_form_of_the_report(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    figures = {
        "keep_share": 0.95,
        "factor": 0.4,
        "validation_start": 0.25,
        "validation_before": 0.75,
        "validation_after": 0.74,
        "validation_n": 32.0,
        "kl_before": 0.5,
        "kl_after": 0.125,
        "earlier_before/alpha": 0.5,
        "earlier_after/alpha": 0.4,
    }
    event = RemedyEvent(1, "beta", "shrink", figures, (), 300, 7.0)
    before = report_json(run)
    with RunDir.open(run) as run_dir:
        run_dir.events.append(
            replace(event, figures=figures | {"factor": 1.0}, notes=("no gain",), seconds=0.0),
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
    assert data["rollouts"]["slow"] == before["rollouts"]["slow"] + 600
    assert data["seconds_by"]["slow"] == before["seconds_by"]["slow"] + 7
    row = "| 2 beta | 0.4 | 0.25 | 0.75 | 0.74 | 0.98 | 0.5000 | 0.1250 | alpha -0.10 |"
    assert row in (run / "report.md").read_text()
    assert "Shrink" in terminal(run, 160)
    assert "alpha -0.10" in terminal(run, 160)
    assert "remedies" not in data
    assert "## Remedies" not in (run / "report.md").read_text()


def test_every_remedy_has_a_row_per_stage_and_its_cost_is_the_slow_channels(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    before = report_json(run)
    assert "remedies" not in before
    hostile = "](x)|<img src=x>\x1b[31m"
    first = RemedyEvent(
        0, "alpha", "ewc", {"ewc/penalty": 0.25, "ewc/rank": None}, (), 9, 1.5, 0.75, 2_500_000
    )
    own = RemedyEvent(1, "beta", hostile, {hostile: 2.0}, (hostile, "Second."))
    # a remedy of the user's own that took the name, but not the figures
    twin = RemedyEvent(2, "gamma", "shrink", {"factor": 0.5})
    with RunDir.open(run) as run_dir:
        run_dir.events.append(replace(first, rollouts=1), first, own, twin)
    data = report_json(run)
    assert [(r["stage"], r["name"], r["rollouts"]) for r in data["remedies"]] == [
        (0, "ewc", 9),
        (1, hostile, 0),
        (2, "shrink", 0),
    ]
    assert [r["bytes"] for r in data["remedies"]] == [2_500_000, 0, 0]
    assert data["remedies"][0]["figures"] == {"ewc/penalty": 0.25, "ewc/rank": None}
    assert data["shrink"] == []
    assert data["rollouts"]["slow"] == before["rollouts"]["slow"] + 10
    # twice those of its end; those within updates are in the cycles' time
    assert data["seconds_by"]["slow"] == before["seconds_by"]["slow"] + 3
    text = (run / "report.md").read_text()
    assert (
        "| 1 alpha | ewc | - | - | ewc/penalty 0.25, ewc/rank undefined | 9 | 2.2 | 2.500 | - |"
        in text
    )
    shown = r"]\(x)\|&lt;img src=x>\\x1b[31m"
    assert f"| 2 beta | {shown} | - | - | {shown} 2 | 0 | 0.0 | - | {shown} Second. |" in text
    assert "\x1b" not in terminal(run, 160)


def test_a_remedys_loss_and_gradient_share_are_means_over_the_cycles_of_its_stage(
    tmp_path: Path,
) -> None:
    def phase(stage: int, cycle: int, **figures: float | None) -> CycleEvent:
        metrics = {f"slow/remedy/{name.replace('__', '/')}": v for name, v in figures.items()}
        return CycleEvent(stage, cycle, {"slow": 0}, {"slow": 0.0}, metrics)

    run = write_run(tmp_path)
    with RunDir.open(run) as run_dir:
        run_dir.events.append(
            phase(1, 0, ewc__loss=100.0, ewc__gradient_share=100.0),  # made again after a stop
            phase(1, 0, ewc__loss=0.25, ewc__gradient_share=1.0, replay__loss=8.0),
            CycleEvent(1, 0, {"fast": 4}, {"fast": 1.0}, {"fast/best_score": 0.5}),
            phase(1, 1, ewc__loss=0.75, ewc__gradient_share=None),
            phase(2, 0, ewc__loss=40.0, ewc__gradient_share=4.0),
            phase(1, 2),  # no update with a signal: nothing was added
            *(RemedyEvent(stage, task, "ewc", {}) for stage, task in enumerate(TASKS)),
            RemedyEvent(1, "beta", "replay-2", {}),
        )
    means = {
        (r["stage"], r["name"]): (r["loss"], r["gradient_share"])
        for r in report_json(run)["remedies"]
    }
    assert means == {
        (0, "ewc"): (None, None),
        (1, "ewc"): (0.5, 1.0),
        (2, "ewc"): (40.0, 4.0),
        (1, "replay-2"): (None, None),
    }
    text = (run / "report.md").read_text()
    assert "| 2 beta | ewc | 0.5 | 1 | - | 0 | 0.0 | - | - |" in text
    assert "| 3 gamma | ewc | 40 | 4 | - | 0 | 0.0 | - | - |" in text


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


def test_what_a_new_prompt_brings_back_is_said_with_its_budget(tmp_path: Path) -> None:
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
