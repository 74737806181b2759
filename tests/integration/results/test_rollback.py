"""Going back to an earlier stage: the earlier scores come back exactly, and nothing is lost."""

import json
import shutil
from datetime import date
from pathlib import Path

import pytest

from fastslow.cli.main import main
from fastslow.config.loading.load import LoadedConfig, load_resolved
from fastslow.core.types import SampleScore
from fastslow.loop.build import build_policy, build_tasks
from fastslow.measure.evaluator import Evaluator
from fastslow.policy.adapter.lora import adapter_fingerprint
from fastslow.policy.adapter.parts import freeze_trained
from fastslow.policy.policy import Policy
from fastslow.policy.saved import CONFIG_FILE, WEIGHTS_FILE, fingerprint_of_file, read_kept
from fastslow.records.deployments import DEPLOYED_FILE, deployed_row, deployments
from fastslow.records.jsonl import read_scores
from fastslow.records.run_folder import RunDir
from fastslow.results.deploy.standing import read_standing
from fastslow.results.report import build_report, recompute_report, write_report
from fastslow.results.report.sections.prompts import Prompts
from tests.support.run_folder import without_seal
from tests.support.runs import WIDER, start

POLICIES = ("continue", "merge-then-new", "new-per-stage")


def toy_run(folder: Path, tiny_folder: Path, *overrides: str) -> Path:
    words = [f"model.name={tiny_folder}", *WIDER, *overrides]
    return start(folder, words, finish=write_report)


@pytest.fixture(scope="module", params=POLICIES)
def finished(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> Path:
    folder = tmp_path_factory.mktemp("rollback")
    how = f"slow.adapter_policy={request.param}"
    light = ["evaluation.channel_split=false", "evaluation.neutral=false", "slow.lr=0.1"]
    return toy_run(folder, tiny_folder, how, *light)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / finished.name)


def loaded_policy(run: Path) -> tuple[LoadedConfig, Policy]:
    loaded = load_resolved(run / "config.json")
    return loaded, build_policy(loaded.config, loaded.config.model.name, date(2026, 1, 2))


def recorded(run: Path, row: int) -> dict[tuple[str, str], SampleScore]:
    """What the headline matrix has in a row, by task and example."""
    standing = read_standing(run, row)
    texts = {task.task: task.text for task in standing.tasks}
    return {
        (r.sample.task, r.sample.example): r.sample
        for r in read_scores(run / "scores.jsonl")
        if r.row == row and r.cycle is None and r.sample.text_hash == texts[r.sample.task]
    }


def test_after_a_rollback_the_earlier_scores_come_back_exactly(run: Path) -> None:
    assert recorded(run, 1) != recorded(run, 2)
    assert main(["rollback", str(run), "--to", "1"]) == 0
    standing = read_standing(run)
    assert standing.row == deployed_row(run, 2) == 1
    loaded, policy = loaded_policy(run)
    policy.load(standing.folder)
    evaluator = Evaluator(loaded.config.evaluation.test_examples, 4)
    before = recorded(run, 1)
    for name, task in build_tasks(loaded, loaded.config.task_names).items():
        with policy.adapters.serving(name):
            drawn = evaluator.score(policy, task, policy.live_program(task), "live")
        for one in drawn:
            old = before[name, one.example]
            assert (one.score, one.completion, one.weights, one.text_hash) == (
                old.score,
                old.completion,
                old.weights,
                old.text_hash,
            )


def contents(run: Path) -> dict[str, bytes]:
    """Every file of a run but those that say who holds it."""
    paths = {path.relative_to(run).as_posix(): path for path in run.rglob("*") if path.is_file()}
    return {
        name: path.read_bytes() for name, path in paths.items() if not name.startswith("lease/")
    }


def test_a_rollback_loses_nothing_and_can_be_undone(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = ("report.md", "report.json", "report.html", "scores.csv")
    before = contents(run)
    reports = {name: (run / name).read_bytes() for name in report}
    for _ in range(2):  # the second, as after a kill, changes nothing
        assert main(["rollback", str(run), "--to", "1"]) == 0
        assert "policy after stage 1 of 2" in capsys.readouterr().out
    after = contents(run)
    changed = {str(p) for p in after if after[p] != before.get(p)}
    assert changed == {DEPLOYED_FILE, "report.md", "report.json", "report.html"}
    assert before.keys() <= after.keys()
    data = json.loads((run / "report.json").read_text())
    assert "Rolled back: in use is the policy after stage 1 of 2." in data["verdict"]
    assert data["deployed"]["weights"] == {t.task: t.weights for t in read_standing(run, 1).tasks}
    assert {prompt.stage for prompt in build_report(run).section(Prompts).prompts} == {0}
    assert recompute_report(run) == ()
    assert main(["rollback", str(run), "--to", "2"]) == 0
    assert [(e.before, e.row) for e in deployments(run)] == [(2, 1), (1, 2)]
    assert "Rolled back" not in json.loads((run / "report.json").read_text())["verdict"]
    (run / DEPLOYED_FILE).unlink()
    write_report(run)
    assert {name: (run / name).read_bytes() for name in report} == reports


def test_the_gate_judges_what_is_deployed(run: Path) -> None:
    main(["gate", str(run)])
    last = json.loads((run / "gate" / "gate.json").read_text())
    main(["rollback", str(run), "--to", "1"])
    main(["gate", str(run)])
    first = json.loads((run / "gate" / "gate.json").read_text())
    assert (last["run"]["row"], first["run"]["row"]) == (2, 1)
    assert last["stage_files"] == first["stage_files"] == "verified"
    assert any("rolled back" in note for note in first["notes"])
    assert {rule["rule"] for rule in first["rules"]} == {"below_base"}


def test_what_does_not_fit_is_refused_and_changes_nothing(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    without_seal(run)

    def refused(said: str, stage: str = "1") -> None:
        assert main(["rollback", str(run), "--to", stage]) == 2
        assert said in capsys.readouterr().err
        assert not (run / DEPLOYED_FILE).exists()

    refused("there is no stage 0. Known: 1 to 2", "0")
    refused("there is no stage 3. Known: 1 to 2", "3")
    with RunDir.open(run):
        refused("another process writes to this run")
    first, second = read_standing(run, 1).folder, read_standing(run, 2).folder
    texts = (first / "texts.json").read_text()
    (first / "texts.json").write_text(texts.replace("Write letters", "Write numbers"))
    refused("is not the one that was scored")
    (first / "texts.json").write_text(texts)
    shutil.copy(second / WEIGHTS_FILE, first / WEIGHTS_FILE)
    refused("is not the one that was scored")
    assert main(["gate", str(run)]) in (0, 3)  # the second stage is untouched
    (first / WEIGHTS_FILE).write_bytes(b"\xff" * 100)
    refused("the adapter cannot be read")
    shutil.rmtree(first)
    refused(f"Known: {second.name}.")


@pytest.mark.parametrize(
    "edit",
    [
        {"lora_alpha": 1600.0},
        {"r": 1},
        {"use_rslora": True},
        {"alpha_pattern": {"q_proj": 99}},
        {"layer_replication": [[0, 1]]},
        {"bias": "all"},
        {"peft_type": "IA3"},
        None,
    ],
)
def test_an_adapter_with_other_settings_is_not_deployed(
    run: Path, edit: dict[str, object] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its tensors are those that were scored, but it would answer otherwise, or not load."""
    without_seal(run)
    path = read_standing(run).folder / CONFIG_FILE
    if edit is None:
        path.unlink()
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    for command in (["gate"], ["export", "--trust"]):
        assert main([*command, str(run)]) == 2
        assert "not the settings that the adapter was scored with" in capsys.readouterr().err
    assert not (run / "export").exists()


GOLD = (
    "stages=[{task: first, cycles: 1}, {task: second, cycles: 1}]",
    "cycle={optimizer_steps: 20, problems: 4, pool: 0}",
    "fast=null",
    "slow={kind: sft, lr: 0.03}",
    *(f"evaluation.{part}=false" for part in ("channel_split", "neutral", "geometry", "proxies")),
)
"""Each stage teaches its letters until they are all the model writes."""


def test_a_destructive_run_fails_the_gate_and_a_rollback_brings_the_score_back(
    tmp_path: Path, tiny_folder: Path
) -> None:
    run = toy_run(tmp_path, tiny_folder, *GOLD)
    assert main(["gate", str(run)]) == 3
    verdict = json.loads((run / "gate" / "gate.json").read_text())
    assert verdict["failed"] == ["forgetting", "task_forgetting first"]
    lost = {task.task: task.now.score for task in read_standing(run).tasks}
    assert main(["rollback", str(run), "--to", "1"]) == 0
    assert main(["gate", str(run)]) == 0
    back = {task.task: task.now.score for task in read_standing(run).tasks}
    assert (lost["first"] or 0) + 0.4 < (back["first"] or 0)
    assert back == {t: cell.score for t, cell in zip(back, build_report(run).cells[1], strict=True)}


def test_a_gentle_run_passes_the_gate(tmp_path: Path, tiny_folder: Path) -> None:
    """As the destructive one, but every task keeps its own adapter."""
    run = toy_run(tmp_path, tiny_folder, *GOLD, "slow.adapter_policy=new-per-stage")
    assert main(["gate", str(run)]) == 0
    assert "first" in {task.task for task in read_standing(run).trained}


def test_the_fingerprint_of_a_file_is_that_of_the_adapter(moved: Policy, tmp_path: Path) -> None:
    for name in ("one part", "two parts"):
        moved.save(tmp_path / name)
        kept = read_kept(tmp_path / name)
        assert kept.weights_of("letters") == adapter_fingerprint(moved.model)
        assert fingerprint_of_file(tmp_path / name / WEIGHTS_FILE) == kept.weights_of("any")
        freeze_trained(moved.model, 5)
