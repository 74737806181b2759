"""Ablation files: what they may say, what they mean, and what is found of their runs."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from fastslow.cli.main import main
from fastslow.config.cost import estimate_cost
from fastslow.config.tracking import MlflowConfig
from fastslow.core.errors import CheckpointError, ConfigError, EvaluationError
from fastslow.records.data import write_data
from fastslow.records.run_folder import RunDir
from fastslow.results.ablation import is_ablation, read_plan
from fastslow.results.ablation.plan import Plan, PlannedRun, RunStatus, plan_table
from fastslow.results.ablation.records import read_records, require_same_data
from fastslow.task.registry import build_task
from tests.support.run_folder import score_row

BASE = """
name: base
stages: [{task: country_continent, cycles: 1}, {task: word_valence, cycles: 1}]
cycle: {optimizer_steps: 2, problems: 2, pool: 8}
fast: {population: 2, metric_calls: 24}
slow: {group: 4}
runs_dir: out
"""
FILE = """
name: channels
base: base.yaml
seeds: [3, 4]
common: {probe: null, evaluation: {test_examples: 8}}
arms:
  base: {fast: null, slow: null}
  slow-only: {fast: null, cycle: {optimizer_steps: 5}}
  fst: {}
claims: {fast_slow: fst, slow_only: slow-only}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)
    return tmp_path


def plan(text: str = FILE, *overrides: str) -> Plan:
    Path("file.yaml").write_text(text)
    return read_plan(Path("file.yaml"), overrides)


def status_of(ablation: Plan, run: PlannedRun) -> RunStatus:
    [(_, status)] = ablation.statuses([run])
    return status


def refusal(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        plan(text, *overrides)
    return str(caught.value).splitlines()


def test_a_reference_of_a_method_that_no_arm_has_is_refused() -> None:
    alone = "  alone: {stages: [{task: word_valence, cycles: 1}]}\nclaims"
    text = FILE.replace("claims", alone) + "references: {isolated: {word_valence: alone}}\n"
    assert plan(text).config.references.arms_alone() == {"word_valence": ("alone",)}
    other = text.replace("alone: {stages", "alone: {fast: {population: 1}, stages")
    [line] = refusal(other)
    assert line.startswith("file.yaml:12: references.isolated.word_valence: a reference for no arm")
    assert "got 'alone'. Every other arm differs from it in more than its stages" in line
    [line] = refusal(FILE + "references: {joint: slow-only}\n")
    assert line.startswith(
        "file.yaml:11: references.joint: a reference for no arm, got 'slow-only'"
    )


def test_every_arm_runs_under_every_seed() -> None:
    ablation = plan()
    assert [run.name for run in ablation.runs] == [
        f"{arm}-s{seed}" for seed in (3, 4) for arm in ("base", "slow-only", "fst")
    ]
    assert ablation.folder == Path("out/channels")
    slow_only = ablation.runs[1].config
    assert (slow_only.seed, slow_only.fast, slow_only.cycle.optimizer_steps) == (3, None, 5)
    assert slow_only.evaluation.test_examples == 8
    assert isinstance(slow_only.tracking, MlflowConfig)
    assert slow_only.tracking.experiment == "channels"
    assert len({run.hash for run in ablation.runs}) == 6


def test_an_arm_wins_over_an_override_and_an_override_over_the_common_part() -> None:
    ablation = plan(FILE, "evaluation.test_examples=4", "cycle.optimizer_steps=3", "seeds=[0]")
    assert [run.config.evaluation.test_examples for run in ablation.runs] == [4, 4, 4]
    assert [run.config.cycle.optimizer_steps for run in ablation.runs] == [3, 5, 3]


def test_orders_permute_the_stages_of_arms_without_stages_of_their_own() -> None:
    text = FILE + "orders: {back: [word_valence, country_continent]}\n"
    text = text.replace("fst: {}", "fst: {}\n  alone: {stages: [{task: word_valence, cycles: 1}]}")
    stages = {run.name: [s.task for s in run.config.stages] for run in plan(text, "seeds=[0]").runs}
    assert stages["fst-s0-back"] == ["word_valence", "country_continent"]
    assert stages["alone-s0"] == ["word_valence"]
    wrong = FILE + "orders: {back: [word_valence, word_valense]}\n"
    [line] = refusal(wrong)
    assert line.startswith("file.yaml:11: orders.back: not an order of the base's stages")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("fst: {}", "fst: {slow: {grup: 4}}"), "slow.grup: unknown key, got 'grup'. Did you mean"),
        (("seeds:", "seed:"), "file.yaml:4: seed: unknown key, got 'seed'. Did you mean 'seeds'?"),
        (("fast_slow: fst", "fast_slow: fts"), "no such arm, got 'fts'. Did you mean 'fst'?"),
        (("slow_only: slow-only", "slow_only: fst"), "the same arm as claims.fast_slow"),
        (("[3, 4]", "[3, 3]"), "file.yaml:4: seeds: a seed is named twice"),
        (("base.yaml", "bass.yaml"), "bass.yaml: cannot read: no such file. Did you mean"),
        (("  fst:", "  FST:"), "not a usable name, got 'FST'"),
        (("fst: {}", "fst: {fast: {population: 3}}"), "(in arm fst)"),
        (("fst: {}", "fst: {seed: 1}"), "file.yaml:9: arms.fst.seed: not of an ablation's runs"),
        (("fst: {}", "fst: {name: one}"), "arms.fst.name: not of an ablation's runs: a run is"),
        (("fst: {}", "fst: {runs_dir: x}"), "arms.fst.runs_dir: not of an ablation's runs: all"),
        (("{probe: null", "{seed: 1, probe: null"), "file.yaml:5: common.seed: not of an"),
    ],
)
def test_mistakes_are_shown_where_they_were_written(change: tuple[str, str], message: str) -> None:
    lines = refusal(FILE.replace(*change))
    assert any(message in line for line in lines), lines


def test_a_seed_as_an_override_is_refused_rather_than_ignored() -> None:
    assert refusal(FILE, "seed=1") == [
        "override 'seed=1': every arm runs under each of `seeds`. Name seeds there."
    ]


def test_a_mistake_of_the_base_is_said_once() -> None:
    Path("base.yaml").write_text(BASE.replace("group: 4", "group: one"))
    [line] = refusal(FILE.replace("  base: {fast: null, slow: null}\n", ""))
    assert line.startswith("base.yaml:6: slow.group: wrong type")


def test_an_ablation_is_known_by_its_arms() -> None:
    plan()
    assert is_ablation(Path("file.yaml"))
    assert not is_ablation(Path("base.yaml"))


def test_runs_are_found_by_name_and_configuration() -> None:
    ablation = plan()
    first, second = ablation.runs[:2]
    assert status_of(ablation, first).state == "missing"
    with RunDir.create(first.config, {}, ()) as run_dir:
        assert status_of(ablation, first).state == "running"
    assert status_of(ablation, first).state == "broken"
    with RunDir.open(run_dir.path) as again:
        again.mark("finished")
    assert status_of(ablation, first).state == "finished"
    assert status_of(ablation, first).path == run_dir.path
    assert status_of(ablation, second).state == "missing"


def test_a_changed_configuration_is_another_run_and_said() -> None:
    with RunDir.create(plan().runs[0].config, {}, ()) as run_dir:
        run_dir.mark("finished")
    changed = plan(FILE, "evaluation.test_examples=4")
    status = status_of(changed, changed.runs[0])
    assert (status.state, status.others) == ("missing", (plan().runs[0].hash,))
    note = plan_table(changed).note
    assert "Run before with another configuration" in note
    assert "base-s3" in note


def test_runs_that_scored_other_versions_of_a_task_are_not_compared() -> None:
    ablation = plan()
    for run, version in zip(ablation.runs[:2], ("word_valence@1", "word_valence@2"), strict=True):
        with RunDir.create(run.config, {}, ()) as run_dir:
            row = score_row(run.name, 0, "word_valence", 0, 1.0)
            run_dir.scores.append(replace(row, sample=replace(row.sample, version=version)))
            run_dir.mark("finished")
    assert len(read_records(ablation, {"base-s3": ablation.finished()["base-s3"]})) == 1
    with pytest.raises(EvaluationError, match=r"@2, other runs .* as word_valence@1"):
        read_records(ablation, ablation.finished())


def test_a_damaged_card_is_no_run() -> None:
    with RunDir.create(plan().runs[0].config, {}, ()) as run_dir:
        (run_dir.path / "run.json").write_text("{")
    assert status_of(plan(), plan().runs[0]).state == "missing"


def test_the_plan_shows_budgets_of_arms_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row[0].text: [cell.text for cell in row] for row in plan_table(plan()).rows}
    assert rows["base"][5:9] == ["0", "0", "0", "0.00"]
    assert rows["slow-only"][5:8] == ["0", "80", "80"]
    assert main(["ablate", "file.yaml", "--dry-run"]) == 0
    assert main(["check", "file.yaml"]) == 0
    assert "file.yaml: ok, channels, 3 arms, 6 runs" in capsys.readouterr().out
    assert not Path("out").exists()


def test_minutes_to_do_are_those_of_the_search_too() -> None:
    def minutes(text: str) -> list[float]:
        found = plan(text)
        runs = [*found.runs, *(found.search.plan.runs if found.search else ())]
        costs = [estimate_cost(run.config).minutes for run in runs]
        said = re.search("To do: about ([0-9]+) minutes", plan_table(found).note)
        assert said is not None
        return [float(said[1]), sum(cost for cost in costs if cost is not None)]

    searched = FILE + "search: {values: [1.0e-4, 3.0e-4, 1.0e-3]}\n"
    (said, true), (said_without, _) = minutes(searched), minutes(FILE)
    assert said == round(true) > said_without


def test_resolved_configurations_are_those_of_ordinary_runs() -> None:
    from fastslow.config.loading.load import config_hash, dump_resolved, load_resolved

    run = plan().runs[1]
    Path("run.json").write_text(dump_resolved(run.config))
    assert config_hash(load_resolved(Path("run.json")).config) == run.hash
    assert json.loads(Path("run.json").read_text())["name"] == "slow-only-s3"


def test_finished_runs_and_runs_to_be_made_must_be_on_the_same_data() -> None:
    ablation = plan()
    first, config = ablation.runs[0], ablation.runs[0].config
    tasks = {name: build_task(name, config.task_use(name).use, {}) for name in config.task_names}
    with RunDir.create(config, {}, (), tasks=tasks) as run_dir:
        run_dir.mark("finished")
    require_same_data(ablation, ablation.finished())
    name, task = next(iter(tasks.items()))
    flipped = replace(task, test=tuple(replace(e, answer=f"not {e.answer}") for e in task.test))
    write_data(run_dir.path, tasks | {name: flipped})
    assert list(ablation.finished()) == [first.name]
    with pytest.raises(CheckpointError, match=f"data of task '{name}' is not that of .* test exam"):
        require_same_data(ablation, ablation.finished())
