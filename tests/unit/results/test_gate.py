"""The gate on synthetic run folders: what passes, what does not, and what cannot be judged."""

import inspect
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fastslow.cli import deploy as commands
from fastslow.cli.main import main
from fastslow.core.errors import CheckpointError, ConfigError, GateError
from fastslow.measure.stats.intervals import PairedDifference, paired_difference, wilson
from fastslow.measure.stats.significance import noise_floor
from fastslow.records.events import RunEvent
from fastslow.records.jsonl import RecordWriter
from fastslow.results.deploy import gate_file
from fastslow.results.deploy.gate import GateOptions, judge
from fastslow.results.deploy.gate_file import recompute_verdict, verdict_lines, write_verdict
from fastslow.results.report import build_report
from fastslow.results.report.gate_rules import (
    MAX_FORGETTING,
    MAX_TASK_FORGETTING,
    RuleResult,
    judge_loss,
    judge_score,
    mean_change,
    side_by_side,
)
from fastslow.results.report.sections.tasks import Drops, Tasks
from tests.support.paths import ROOT
from tests.support.run_folder import OUTCOMES, name_clusters, score_row, write_run

GENTLE: tuple[Mapping[str, str], ...] = (
    {"alpha": "00000001", "beta": "00000000", "gamma": "00000000"},
    {"alpha": "11111110", "beta": "00100000", "gamma": "00000000"},
    {"alpha": "11111111", "beta": "11111100", "gamma": "00000001"},
    {"alpha": "11111111", "beta": "11111100", "gamma": "11111000"},
)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each kind; to be copied."""
    folder = tmp_path_factory.mktemp("made")
    return {
        "gentle": write_run(folder / "gentle", GENTLE),
        "destructive": write_run(folder / "destructive", OUTCOMES),
    }


@pytest.fixture
def gentle(kinds: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(kinds["gentle"], tmp_path / "runs" / "gentle")


@pytest.fixture
def destructive(kinds: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(kinds["destructive"], tmp_path / "runs" / "destructive")


def gate(run: Path, *words: str) -> int:
    return main(["gate", str(run), *words])


def data(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / "gate" / "gate.json").read_text())
    return content


def repeat_base(run: Path, outcomes: Mapping[str, str]) -> None:
    """A second evaluation of the base."""
    with RecordWriter(run / "scores.jsonl") as scores:
        for task, digits in outcomes.items():
            for example, digit in enumerate(digits):
                row = score_row(run.name, 0, task, example, float(digit))
                object.__setattr__(row.sample, "sample", 1)
                scores.append(row)


def test_a_gentle_run_passes_and_a_destructive_one_does_not(
    gentle: Path, destructive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate(gentle) == 0
    assert "gate: YES, every rule holds" in capsys.readouterr().out
    assert data(gentle)["verdict"] == "yes"
    assert gate(destructive) == 3
    printed = capsys.readouterr().out
    assert "gate: NO, 2 of 6 rules failed" in printed
    assert "FAIL forgetting: +0.438" in printed
    assert "FAIL task_forgetting alpha: +0.875 [+0.630, +1.000] <= 0.050 (option)" in printed
    assert "smallest detectable 0.350" in printed
    content = data(destructive)
    assert content["verdict"] == "no"
    assert content["failed"] == ["forgetting", "task_forgetting alpha"]


def test_the_mean_it_judges_is_the_reports_backward_transfer(destructive: Path) -> None:
    verdict = judge(destructive, GateOptions())
    mean = next(rule for rule in verdict.rules if rule.rule == "forgetting")
    assert math.isclose(mean.value, -(verdict.standing.metrics["bwt_gem"].value or 0))


@pytest.mark.parametrize("kind", ["gentle", "destructive"])
def test_gate_and_report_have_one_estimate_of_what_a_task_lost(
    kinds: dict[str, Path], kind: str
) -> None:
    run, losses = kinds[kind], dict[str | None, RuleResult]()
    for rule in judge(run, GateOptions()).rules:
        if rule.rule in ("forgetting", "task_forgetting"):
            losses[rule.task] = rule
    report = build_report(run)
    changes = {s.task: s.change.difference for s in report.section(Tasks).summaries}
    learned_before = {task: change for task, change in changes.items() if change is not None}
    assert losses.keys() == {None, *learned_before}
    for task, change in learned_before.items():
        assert losses[task].value == -change.mean
        assert losses[task].drop_shown is change.is_drop
        assert losses[task].smallest_detectable == change.smallest_detectable
    assert side_by_side(list(losses.values())) == next(iter(report.section(Drops).tables()))


def test_a_rise_after_the_own_stage_is_named_and_not_judged(tmp_path: Path) -> None:
    rows = [*GENTLE[:2], {**GENTLE[2], "alpha": "11111111"}, {**GENTLE[3], "alpha": "11111110"}]
    verdict = judge(write_run(tmp_path, rows), GateOptions())
    loss = next(rule for rule in verdict.rules if rule.task == "alpha")
    assert (loss.rule, loss.value, loss.passed) == ("task_forgetting", 0.0, True)
    assert "alpha scored 1.00 after stage 2, more than right after its own" in verdict.notes[0]
    assert judge(write_run(tmp_path / "b", GENTLE), GateOptions()).notes[0].startswith("the noise")


def test_what_gate_and_report_conclude_stands_side_by_side(
    destructive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gate(destructive) == 3
    printed = " ".join(capsys.readouterr().out.split())
    assert "Did a task drop? Report and gate" in printed
    table = side_by_side(judge(destructive, GateOptions()).rules)
    assert [cell.text for cell in table.rows[1]] == [
        "alpha",
        "+0.88 [+0.63, +1.00]",
        "yes, significantly",
        "no: above 0.05",
        "no: up to 1.00 is possible",
    ]
    assert [cell.text for cell in table.rows[2]] == [
        "beta",
        "+0.00 [-, +0.32]",
        "no; one below 0.32 could have been missed",
        "yes: at most 0.05",
        "no: up to 0.32 is possible",
    ]


def test_a_run_that_never_was_good_fails_by_its_base_and_by_the_least_score(tmp_path: Path) -> None:
    worse = [{**row, "gamma": "11110000" if i == 0 else "00000000"} for i, row in enumerate(GENTLE)]
    run = write_run(tmp_path, worse)
    assert gate(run, "--min-score", "gamma=0.3", "--min-score", "alpha=0.9") == 3
    assert data(run)["failed"] == ["below_base gamma", "min_score gamma"]


def test_the_larger_of_threshold_and_noise_floor_counts(tmp_path: Path) -> None:
    run = write_run(tmp_path, [*GENTLE[:3], {**GENTLE[3], "alpha": "11111100"}])
    assert gate(run) == 3
    repeat_base(run, {"alpha": "01100001", "beta": "10000000", "gamma": "00000000"})
    assert gate(run) == 0
    content = {(rule["rule"], rule["task"]): rule for rule in data(run)["rules"]}
    assert content["task_forgetting", "alpha"]["limit"] == 0.25
    assert content["task_forgetting", "alpha"]["limit_from"] == "noise floor"
    assert content["forgetting", None]["limit"] == 0.1875  # mean of alpha's and beta's
    assert content["below_base", "gamma"]["limit"] == MAX_TASK_FORGETTING


def test_strict_demands_that_the_interval_excludes_the_loss(
    gentle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = gentle
    assert gate(run, "--strict") == 3
    assert "FAIL task_forgetting beta: +0.000 [-, +0.324]" in capsys.readouterr().out
    assert data(run)["compared"] == "upper ends of 95 % intervals"
    assert gate(run, "--strict", "--max-forgetting", "0.5", "--max-task-forgetting", "0.4") == 0


def test_a_pass_by_the_estimate_alone_says_what_it_could_not_exclude(gentle: Path) -> None:
    lines = list(verdict_lines(judge(gentle, GateOptions())))
    assert any("a loss of up to 0.324 is not excluded" in line for line in lines)
    assert any("the noise floor is not measured" in line for line in lines)


def test_of_many_rules_those_that_failed_and_those_nearest_to_their_limits_are_shown(
    gentle: Path, destructive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_file, "SHOWN", 2)
    holds = judge(gentle, GateOptions(min_scores={"beta": 0.01, "alpha": 0.0}))
    shown = gate_file.shown_rules(holds)
    room = {rule: abs(rule.value - rule.limit) for rule in holds.rules if rule.task is not None}
    assert [rule.rule for rule in shown if rule.task is None] == ["forgetting"]
    assert [room[rule] for rule in shown if rule.task is not None] == [min(room.values())]
    lines = list(verdict_lines(holds))
    assert sum(line.startswith("  ok ") for line in lines) == 3
    assert f"{len(holds.rules) - 2} more rules" in "\n".join(lines)
    monkeypatch.setattr(gate_file, "SHOWN", 0)
    fails = judge(destructive, GateOptions())
    assert gate_file.shown_rules(fails) == [*fails.failed]
    assert 0 < len(fails.failed) < len(fails.rules)


def test_losses_of_examples_of_one_source_are_less_certain(gentle: Path, destructive: Path) -> None:
    options = GateOptions(against=str(gentle))

    def widths() -> dict[str, float]:
        rules = judge(destructive, options).rules
        return {
            f"{rule.rule} {rule.task}": rule.high - rule.low
            for rule in rules
            if rule.low is not None and rule.high is not None
        }

    alone = widths()
    for run in (gentle, destructive):
        name_clusters(run, [f"e{n}" for n in range(1, 5)])
    shared = widths()
    for name in ("task_forgetting alpha", "task_against alpha", "against None"):
        assert shared[name] > alone[name], name


def test_against_a_baseline_losses_are_paired_on_examples(gentle: Path, destructive: Path) -> None:
    run, baseline = destructive, gentle
    options = ["--max-forgetting", "1", "--max-task-forgetting", "1"]
    assert gate(run, *options) == 0
    assert gate(run, "--against", str(baseline)) == 3
    assert {"against", "task_against alpha"} <= set(data(run)["failed"])
    assert data(run)["baseline"]["run"] == json.loads((baseline / "run.json").read_text())["run"]
    assert gate(baseline, "--against", str(run)) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", "not a run folder"),
        ("unfinished", "the run is running, expected finished"),
        ("other task", "task 'delta' of the baseline"),
        ("other examples", "they are not the same ones"),
        ("itself", "is the run itself"),
    ],
)
def test_a_baseline_that_cannot_be_compared_refuses(
    gentle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    run = gentle
    outcomes: Sequence[Mapping[str, str]] = GENTLE
    if change == "unfinished":
        outcomes = GENTLE[:2]
    if change == "other task":
        outcomes = [{**row, "delta": "00000000"} for row in GENTLE]
    if change == "other examples":
        outcomes = [{task: digits[:7] for task, digits in row.items()} for row in GENTLE]
    held_out = ("delta",) if change == "other task" else ()
    baseline = tmp_path / "none"
    if change != "missing":
        baseline = write_run(tmp_path / "b", outcomes, held_out=held_out)
    assert gate(run, "--against", str(run if change == "itself" else baseline)) == 2
    assert message in capsys.readouterr().err
    assert not (run / "gate").exists()


@pytest.mark.parametrize(
    ("row", "task", "message"),
    [
        (3, "alpha", "the score of task 'alpha' in row 3 is missing"),
        (0, "gamma", "the score of task 'gamma' in row 0 is missing"),
        (1, "alpha", "task 'alpha' cannot be judged: not measured: row 1"),
    ],
)
def test_a_missing_score_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], row: int, task: str, message: str
) -> None:
    outcomes = [dict(scores) for scores in GENTLE]
    del outcomes[row][task]
    assert gate(write_run(tmp_path, outcomes)) == 2
    assert message in capsys.readouterr().err


def test_an_unfinished_run_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gate(write_run(tmp_path, GENTLE[:3])) == 2
    assert "cannot be judged; continue with: fastslow resume" in capsys.readouterr().err


def test_an_example_that_was_not_scored_in_every_row_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = [*GENTLE[:3], {**GENTLE[3], "alpha": "1111111"}]
    assert gate(write_run(tmp_path, outcomes)) == 2
    assert "were scored on other examples" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-forgetting", "nan"], "gate --max-forgetting: expected a number in [0, 1]"),
        (["--max-task-forgetting", "-0.1"], "gate --max-task-forgetting: expected a number"),
        (["--min-score", "alpha"], "expected TASK=SCORE, got 'alpha'"),
        (["--min-score", "alhpa=0.5"], "has no task 'alhpa'. Did you mean 'alpha'?"),
        (["--min-score", "alpha=0.5", "--min-score", "alpha=0.6"], "a task is named twice"),
    ],
)
def test_options_that_make_no_sense_refuse(
    gentle: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert gate(gentle, *words) == 2
    assert message in capsys.readouterr().err


def test_one_stage_is_judged_by_its_base_and_says_so(tmp_path: Path) -> None:
    outcomes = [{"alpha": "11110000"}, {"alpha": "11000000"}]
    verdict = judge(write_run(tmp_path, outcomes, ("alpha",)), GateOptions())
    assert [rule.rule for rule in verdict.failed] == ["below_base"]
    assert "no task was learned before the last stage" in verdict.notes[0]


def test_the_verdict_replays_from_files_byte_for_byte(
    gentle: Path, destructive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, baseline = destructive, gentle
    before = {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()}
    words = ["--against", str(baseline), "--min-score", "alpha=0.5", "--max-forgetting", "0.1"]
    assert gate(run, *words) == 3
    assert gate(run, "--recompute") == 3
    assert gate(run, "--recompute", "--max-forgetting", "1") == 2
    assert "byte-identical" in capsys.readouterr().out
    assert {p.name: p.read_bytes() for p in run.iterdir() if p.is_file()} == before
    moved = shutil.copytree(run, tmp_path / "elsewhere")
    assert not recompute_verdict(moved).passed
    with RecordWriter(run / "events.jsonl") as events:
        events.append(RunEvent("finished", 1.0))
    with pytest.raises(CheckpointError, match=r"not what the files say, it differs in run;"):
        recompute_verdict(run)


def test_it_needs_no_model(gentle: Path) -> None:
    heavy = "'torch', 'transformers', 'peft', 'dspy', 'mlflow'"
    program = (
        f"import sys\nfor name in ({heavy}): sys.modules[name] = None"
        f"\nfrom fastslow.cli.main import main\nsys.exit(main(['gate', {str(gentle)!r}]))"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")


def test_names_from_outside_are_shown_and_not_obeyed(gentle: Path) -> None:
    run = gentle
    card = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**card, "run": "x\x1b[31m\u202e"}))
    lines = "\n".join(verdict_lines(judge(run, GateOptions())))
    assert "\x1b" not in lines
    assert "\\x1b[31m\\u202e" in lines


def test_the_command_and_the_function_have_the_same_defaults() -> None:
    parameters = inspect.signature(commands.gate).parameters
    assert parameters["max_forgetting"].default == MAX_FORGETTING
    assert parameters["max_task_forgetting"].default == MAX_TASK_FORGETTING


def test_the_documented_defaults_and_the_example_are_right() -> None:
    text = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
    assert f"`--max-forgetting`, {MAX_FORGETTING} |" in text
    assert f"`--max-task-forgetting`, {MAX_TASK_FORGETTING} |" in text
    assert f"still admits a loss of {wilson(0, 64).high:.2f}," in text


def change(before: str, after: str) -> PairedDifference:
    return paired_difference([float(d) for d in before], [float(d) for d in after])


@pytest.mark.parametrize(
    ("before", "after", "threshold", "floor", "strict", "passes"),
    [
        ("1111", "1111", 0.0, (), False, True),
        ("1111", "1110", 0.25, (), False, True),  # exactly at the threshold
        ("1111", "1110", 0.24, (), False, False),
        ("1110", "1111", 0.0, (), False, True),  # a gain
        ("1111", "1110", 0.0, (0.5, 0.25), False, True),  # at the noise floor
        ("1111", "1110", 0.0, (0.5,), False, False),  # a floor needs two evaluations
        ("1111", "1111", 0.4, (), True, False),  # nothing changed in four, which shows little
        ("1111", "1111", 0.5, (), True, True),
        ("1111", "1110", 0.7, (), True, False),
        ("1111", "1110", 0.8, (), True, True),
        ("1111", "0000", 1.0, (), True, True),
    ],
)
def test_every_case_of_the_rule(
    before: str,
    after: str,
    threshold: float,
    floor: tuple[float, ...],
    strict: bool,
    passes: bool,
) -> None:
    loss, noise = change(before, after), noise_floor(floor).value
    result = judge_loss("task_against", "alpha", loss, threshold, noise, strict=strict)
    assert result.passed is passes


def lost(changes: list[PairedDifference]) -> RuleResult:
    mean = mean_change(changes)
    return judge_loss("against", None, mean, 0.0, None, strict=False)


def test_without_any_change_the_mean_still_admits_what_it_cannot_see() -> None:
    same = change("1111", "1111")
    mean = lost([same, same])
    assert (mean.value, mean.low, mean.n) == (0.0, None, 8)
    assert mean.high == mean.smallest_detectable == wilson(0, 4).high
    moved = change("11110000", "11100001")
    both = lost([same, moved])
    assert both.high is not None
    assert moved.se is not None
    assert math.isclose(both.high, (1.96 * moved.se + wilson(0, 4).high) / 2)
    assert both.low is not None
    assert math.isclose(both.low, -1.96 * moved.se / 2)


def test_a_least_score_compares_the_score_or_its_lower_bound() -> None:
    interval = wilson(15, 20)
    assert judge_score("alpha", 0.75, interval, 20, 0.75, strict=False).passed
    assert not judge_score("alpha", 0.75, interval, 20, 0.75, strict=True).passed
    assert judge_score("alpha", 0.75, interval, 20, 0.53, strict=True).passed
    assert not judge_score("alpha", 0.75, None, 20, 0.5, strict=True).passed


def test_what_cannot_be_written_is_an_error(gentle: Path) -> None:
    run = gentle
    (run / "gate").write_text("a file where the folder goes")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_verdict(run, judge(run, GateOptions()))


def test_errors_of_the_gate_are_never_a_verdict() -> None:
    assert {GateError.exit_code, ConfigError.exit_code, CheckpointError.exit_code} == {2}
    assert commands.NO == 3
