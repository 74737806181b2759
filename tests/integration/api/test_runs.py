"""Runs from Python: one that is trained, read, asked and continued."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

import fastslow
from fastslow.core.errors import ConfigError, ModelError
from fastslow.core.tracker import TrackedRun
from fastslow.loop import launch
from fastslow.plugins import Tracker, TrackerConfig, tracker
from fastslow.records.jsonl import read_scores
from tests.support.runs import TOY, no_report, outcome, whole_and_cut


@pytest.fixture(scope="module")
def handlers() -> list[object]:
    """Of signals, as they are before any run."""
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.fixture(scope="module")
def run(
    handlers: list[object], tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> fastslow.RunFolder:
    folder = tmp_path_factory.mktemp("api")
    (folder / "toy.yaml").write_text(TOY)
    return fastslow.train(
        folder / "toy.yaml",
        {"model.name": tiny_folder, "slow.lr": 0.01},
        runs_dir=folder / "runs",
        seed=1,
    )


def test_a_run_ends_with_its_report_and_leaves_no_handlers(
    run: fastslow.RunFolder, handlers: list[object]
) -> None:
    assert run.state == "finished"
    assert (run.config["seed"], run.config["slow"]["lr"]) == (1, 0.01)
    assert (run.path / "report.html").is_file()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert "srcdoc=" in run._repr_html_()
    assert "<script" not in run._repr_html_()


def test_the_frames_hold_every_record(run: fastslow.RunFolder) -> None:
    rows = read_scores(run.path / "scores.jsonl")
    scores = run.scores
    assert scores.score.tolist() == [row.sample.score for row in rows]
    assert scores.row.tolist() == [row.row for row in rows]
    assert set(scores.cycle.dropna()) == {1}  # the first of two; the second is the end of a stage
    assert run.metrics[["stage", "cycle", "step"]].to_numpy().tolist()[-1] == [2, 1, 2]
    assert run.metrics["slow/reward"].between(0, 1).all()
    populations = run.events.query("event == 'population'")
    assert populations[["stage", "cycle", "task"]].to_numpy().tolist() == [
        [1, 1, "first"],
        [1, 2, "first"],
        [2, 1, "second"],
    ]


def test_matrix_report_and_prompts_are_those_of_the_records(run: fastslow.RunFolder) -> None:
    report, matrix = run.report, run.matrix
    assert list(matrix.index) == ["base", "1 first", "2 second"]
    assert report["metrics"]["average_accuracy"]["value"] == pytest.approx(matrix.iloc[2].mean())
    deployed = run.scores.query("row == 2 and task == 'second' and prompt_policy == 'live'")
    assert matrix.loc["2 second", "second"] == pytest.approx(deployed.score.mean())
    assert set(deployed.text_hash) == {run.prompts[2]["second"].text_hash}
    assert list(run.prompts[1]) == ["first"]


def test_predictions_are_the_completions_that_were_scored(run: fastslow.RunFolder) -> None:
    for stage in (2, 1):
        rows = run.scores.query(
            f"row == {stage} and task == 'first' and prompt_policy == 'live' and cycle.isna()"
        )
        tests = {f"test-{i}": f"test {i} a" for i in range(10)}
        questions = [tests[example] for example in rows.example]
        assert len(questions) == 4
        assert run.predict("first", questions, stage=stage) == rows.completion.tolist()
    assert run.adapter() == run.path / "stages" / "001-second"
    assert (run.adapter(stage=1) / "adapter_config.json").is_file()


def test_what_a_run_does_not_have_is_refused_with_the_nearest(run: fastslow.RunFolder) -> None:
    with pytest.raises(ConfigError, match=r"no task 'frist'. Did you mean 'first'?"):
        run.predict("frist", ["x"])
    with pytest.raises(fastslow.FastSlowError, match=r"no stage 3\. Known: 1 to 2"):
        run.adapter(stage=3)
    with pytest.raises(fastslow.FastSlowError, match="not a run folder"):
        fastslow.open_run(run.path / "stages")


def test_wrong_input_is_an_error_before_anything_is_made(tmp_path: Path) -> None:
    (tmp_path / "toy.yaml").write_text(TOY)
    with pytest.raises(ConfigError, match=r"sead.*Did you mean 'seed'"):
        fastslow.train(tmp_path / "toy.yaml", sead=1, runs_dir=tmp_path / "runs")
    with pytest.raises(ConfigError, match=r"override slow.lr: cannot stand .* got <object"):
        fastslow.train(tmp_path / "toy.yaml", {"slow.lr": object()})
    with pytest.raises(ModelError, match="nowhere"):
        fastslow.train(tmp_path / "toy.yaml", {"model.name": "./nowhere"}, runs_dir=tmp_path / "r")
    assert [path.name for path in tmp_path.iterdir()] == ["toy.yaml"]


BEGUN: list[str] = []
"""Names of the runs that the tracker heard of."""


class Ear(Tracker):
    """Hears that runs begin."""

    def begin(self, run: TrackedRun) -> None:
        BEGUN.append(run.name)


@tracker(name="ear", source="made here")
def ear(config: TrackerConfig) -> Tracker:
    """Hears that runs begin."""
    return Ear()


OFF = (
    f"tracking={{kind: custom, use: '{__name__}:ear'}}",
    "evaluation.channel_split=false",
    "evaluation.curve_examples=0",
    "evaluation.geometry=false",
    "evaluation.neutral=false",
    "evaluation.proxies=false",
)
ON = (
    OFF[0],
    "evaluation.measures=[{kind: concentration}]",
    "evaluation.prompt_policies=[seed, own, live]",
    "evaluation.reoptimize=true",
    "evaluation.route={signal: {kind: question_logprob, trusted: true}}",
    "evaluation.signals=[{kind: question_logprob}]",
)


def trained(outcome: dict[str, Any]) -> dict[str, Any]:
    """Of what a run left behind, weights and prompts of stages, and the answers of the matrix."""
    answers = [
        (row.row, row.sample.task, row.sample.example, row.sample.completion, row.sample.score)
        for row in outcome["scores"]
        if row.cycle is None and row.sample.prompt_policy == "live"
    ]
    files = {name: data for name, data in outcome["files"].items() if name.startswith("stages/")}
    return {"answers": answers, **files}


@pytest.fixture(scope="module")
def begun(
    tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path
) -> tuple[dict[str, Any], Path]:
    """What a run leaves behind, and the folder of one that was cut in its first stage."""
    folder, words = tmp_path_factory.mktemp("switched"), [f"model.name={tiny_folder}"]
    with pytest.MonkeyPatch.context() as patch:
        whole, cut = whole_and_cut(2, folder, words, patch)
    return outcome(whole), cut


@pytest.mark.parametrize("overrides", [OFF, ON], ids=["off", "on"])
def test_measurements_can_be_switched_in_a_run_that_has_begun_and_change_nothing(
    begun: tuple[dict[str, Any], Path], tmp_path: Path, overrides: tuple[str, ...]
) -> None:
    whole, cut = begun
    run = Path(shutil.copytree(cut, tmp_path / cut.name))
    overrides = (*overrides, f"publish=file://{tmp_path / 'published'}")
    resumed = outcome(launch.resume(run, no_report, overrides))
    assert [run.name] == BEGUN
    BEGUN.clear()
    assert list(tmp_path.glob("published/**/manifest.json"))
    assert trained(resumed) == trained(whole)
    assert resumed["events"] != whole["events"]
    [entry] = json.loads((run / "run.json").read_text())["resumed"]
    assert entry["overrides"] == list(overrides)
    assert fastslow.open_run(run).config["publish"].startswith("file://")
    assert fastslow.open_run(run).report["state"] == "finished"


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("seed=3", "resume seed: .* got 3, the run has 1: every random stream"),
        ("evaluation.test_examples=2", "evaluation.test_examples: .*the choice of a prompt"),
        ("slow.lr=0.5", "resume slow.lr: .* what is learned depends on it"),
        ("stages.0.cycles=9", "resume stages.0.cycles: .* rows already measured"),
    ],
)
def test_overrides_that_could_change_results_are_refused_by_name(
    run: fastslow.RunFolder, word: str, reason: str
) -> None:
    before = (run.path / "config.json").read_bytes()
    with pytest.raises(ConfigError, match=reason):
        launch.resume(run.path, no_report, [word])
    assert (run.path / "config.json").read_bytes() == before
