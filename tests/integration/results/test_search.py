"""The search of an ablation: what it tries, on which data, and that the arms take what won."""

import json
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from benchmarks import unfinished
from fastslow.api.ablation import ablate, make_runs
from fastslow.channels.slow.settings import GrpoConfig
from fastslow.config.loading.load import load_config
from fastslow.core.errors import ConfigError, ModelError
from fastslow.loop.signals import Stopped
from fastslow.records.run_folder import RunDir
from fastslow.results.ablation import read_plan
from fastslow.results.ablation.launchers.base import End
from fastslow.results.ablation.plan import Plan
from fastslow.results.ablation.records_file import read_records_file, records_jsonl
from fastslow.results.ablation.result import make_result
from fastslow.results.ablation.search import TrialScore, search_table

FILE = """
name: tuned
base: base.yaml
seeds: [0, 1]
arms:
  none: {fast: null, slow: null}
  slow-only: {fast: null, slow: {lr: 9e-4}}
  fst: {}
search: {values: [1e-4, 3e-4, 1e-3]}
"""
BASE = """
name: base
stages: [{task: country_continent, cycles: 1}]
cycle: {optimizer_steps: 2, problems: 2, pool: 8}
fast: {population: 2, metric_calls: 24}
slow: {group: 4}
runs_dir: out
"""
SCORES = {
    "search-slow-only-0": 0.2,
    "search-slow-only-1": 0.6,
    "search-slow-only-2": 0.6,
    "search-fst-0": 0.1,
    "search-fst-1": 0.3,
    "search-fst-2": 0.5,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(BASE)
    Path("file.yaml").write_text(FILE)


def plan(*overrides: str) -> Plan:
    return read_plan(Path("file.yaml"), overrides)


def rates(ablation: Plan) -> dict[str, float | None]:
    return {run.name: run.config.slow.lr if run.config.slow else None for run in ablation.runs}


@dataclass
class Job:
    end: End

    def poll(self) -> End:
        return self.end

    def stop(self, sign: signal.Signals) -> None:
        """It has ended."""


@dataclass
class Launcher:
    """Whatever is submitted ends at once, with the average accuracy of `SCORES` over its task.

    As in joint training the task was visited twice.
    """

    fails: str = ""
    stops: str = ""
    names: list[str] = field(default_factory=list)
    num_jobs: int | None = 1

    def submit(self, words: Sequence[str], log: Path) -> Job:
        config = load_config((Path(words[1]),)).config
        self.names.append(config.name)
        if config.name == self.stops:
            raise Stopped(signal.SIGINT)
        if config.name == self.fails:
            return Job(End(1))
        with RunDir.create(config, {}, ()) as run:
            value = SCORES.get(config.name, 0.7)
            task = config.stages[0].task
            report = {"tasks": [task, "held out"], "scores": [[value, 0.9]]}
            report |= {"stages": [{"task": task}] * 2}  # two visits to it
            (run.path / "report.json").write_text(json.dumps(report))
            run.mark("finished")
        return Job(End(0))

    def close(self) -> None:
        """Nothing is to be closed."""


def test_every_arm_with_the_key_is_tried_with_every_value_on_validation() -> None:
    search = plan().search
    assert search is not None
    runs = {run.name: run.config for run in search.plan.runs}
    assert list(runs) == list(SCORES)
    assert rates(search.plan) == {
        f"search-{arm}-{index}": value
        for arm in ("slow-only", "fst")
        for index, value in enumerate((1e-4, 3e-4, 1e-3))
    }
    assert {(run.seed, run.evaluation.split, run.runs_dir) for run in runs.values()} == {
        (1000, "validation", "out/tuned/search")
    }
    assert {run.config.evaluation.split for run in plan().runs} == {"test"}
    assert runs["search-slow-only-0"].fast is None


def test_the_arms_take_what_won_and_say_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rates(plan())["slow-only-s0"] == 9e-4  # as long as nothing was tried
    launcher = Launcher()
    monkeypatch.setattr(
        "fastslow.results.ablation.write.write_ablation",
        lambda ablation: make_result(ablation.config, (), Counter(), (), ablation.search.scores()),
    )
    done = make_runs(plan(), launcher, 1)
    done.require_complete()
    arms = [f"{arm}-s{seed}" for seed in (0, 1) for arm in ("none", "slow-only", "fst")]
    assert launcher.names == [*SCORES, *arms]
    won = {"slow-only": 3e-4, "fst": 1e-3, "none": None}
    assert rates(plan()) == {f"{arm}-s{seed}": won[arm] for seed in (0, 1) for arm in won}
    best = [trial for trial in done.result.search if trial.is_best]
    assert best == [
        TrialScore("slow-only", 3e-4, 0.6, is_best=True),
        TrialScore("fst", 1e-3, 0.5, is_best=True),
    ]
    make_runs(plan(), again := Launcher(), 1)
    assert again.names == []
    Path("records.jsonl").write_text(records_jsonl(done.result))
    assert read_records_file(Path("records.jsonl")).search == done.result.search


def test_without_all_trials_no_arm_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "fastslow.results.ablation.write.write_ablation",
        lambda ablation: make_result(ablation.config, (), Counter()),
    )
    launcher = Launcher(fails="search-fst-1")
    done = make_runs(plan(), launcher, 1)
    assert list(done.failures) == ["search-fst-1"]
    assert launcher.names == list(SCORES)
    search = plan().search
    assert search is not None
    assert list(search.best()) == ["slow-only"]
    cells = [[cell.text for cell in row] for row in search_table(search).rows]
    assert cells[1] == ["slow-only", "0.0003", "0.600", "chosen"]
    assert cells[4] == ["fst", "0.0003", "-", ""]


def test_some_arms_and_another_key_can_be_named() -> None:
    words = ["search.arms=[fst]", "search.path=slow.temperature", "search.values=[0.7, 1]"]
    search = plan(*words).search
    assert search is not None
    slow = [run.config.slow for run in search.plan.runs]
    assert [isinstance(one, GrpoConfig) and one.temperature for one in slow] == [0.7, 1.0]
    assert [run.name for run in search.plan.runs] == ["search-fst-0", "search-fst-1"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.seed=1", "search.seed: a seed of the arms, got 1"),
        ("search.arms=[fts]", "search.arms.0: no such arm, got 'fts'. Did you mean 'fst'?"),
        ("search.path=slow.lrr", "slow.lrr"),
        ("search.values=[1e-4]", "search.values"),
    ],
)
def test_a_search_that_cannot_be_is_refused(override: str, message: str) -> None:
    words = [override, "search.arms=[fst]"] if "lrr" in override else [override]
    with pytest.raises(ConfigError) as caught:
        plan(*words)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["smollm2-135m-instruct", "smollm2-135m", "a/folder/elsewhere"])
def test_a_model_that_is_not_here_is_told_of_before_any_run_begins(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTSLOW_HOME", str(tmp_path / "nothing"))
    with pytest.raises((ModelError, ConfigError), match=f"model.name: .*{name}"):
        ablate("file.yaml", {"model.name": name})
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("stops", "expected"), [("search-fst-0", []), ("none-s0", []), ("fst-s0", [2]), ("fst-s1", [5])]
)
def test_a_stop_leaves_the_comparison_of_the_finished_arms(
    stops: str, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []
    monkeypatch.setattr(
        "fastslow.results.ablation.write.write_ablation",
        lambda ablation: compared.append(len(ablation.finished())),
    )
    with pytest.raises(Stopped):
        make_runs(plan(), Launcher(stops=stops), 1)
    assert compared == expected


def test_an_ablation_goes_on_elsewhere_from_its_packed_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "ABLATIONS", tmp_path / "kept")
    with pytest.raises(Stopped):
        make_runs(plan(), Launcher(stops="fst-s0"), 1)
    for run in plan().finished().values():
        (run / "stages").mkdir()
        (run / "stages" / "adapter_model.safetensors").write_text("weights")
    unfinished.pack(plan().folder)
    unfinished.unpack("tuned", tmp_path / "elsewhere")
    monkeypatch.setattr("fastslow.results.ablation.write.write_ablation", lambda ablation: None)
    make_runs(plan("runs_dir=elsewhere"), launcher := Launcher(), 1)
    assert launcher.names == ["fst-s0", "none-s1", "slow-only-s1", "fst-s1"]
    assert not list((tmp_path / "elsewhere").rglob("*.safetensors"))
