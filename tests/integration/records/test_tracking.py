"""The MLflow tracker over a real SQLite store, read back with MLflow's own client."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest

from fastslow.core.prompts import Candidate, Demonstration, Lineage, PromptProgram
from fastslow.policy.render import chat_messages
from fastslow.records.tracking.tracker import MlflowTracker, NullTracker, Tracker


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def folder(path: Path) -> Path:
    path.mkdir(exist_ok=True)
    return path


def client(folder: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")


def runs_of(folder: Path, experiment: str) -> list[Any]:
    reader = client(folder)
    found = reader.get_experiment_by_name(experiment)
    return sorted(
        reader.search_runs([found.experiment_id]),
        key=lambda run: ("mlflow.parentRunId" in run.data.tags, run.info.run_name),
    )


def play(tracker: Tracker, folder: Path, stages: range) -> None:
    """A small run: two metrics in each stage, one after, an artifact and a text."""
    adapter = folder / "adapter"
    adapter.mkdir(exist_ok=True)
    (adapter / "weights.bin").write_bytes(b"\0" * 16)
    with tracker.run("0101-0000-demo", {"seed": 1, "slow": {"lr": 3e-4, "off": None}, "x": {}}):
        for index in stages:
            with tracker.stage(index, "continent"):
                tracker.log({"slow/reward": 0.25, "slow/kl": None}, step=1)
                tracker.log({"slow/reward": 0.75, "slow/loss": float("nan")}, step=2)
                tracker.artifact(adapter)
            tracker.log({"score/continent": 0.5}, step=index + 1)
        tracker.text("report.md", "# Zürich")
        text = PromptProgram("Name it.")
        tracker.prompts(0, "continent", (Candidate(text, {}),), text)


def test_a_sequence_is_a_parent_run_with_one_nested_run_per_stage(store: Path) -> None:
    tracker = MlflowTracker(store, folder(store / "a"), experiment="one")
    play(tracker, store, range(2))
    assert tracker.num_failures == 0
    parent, first, second = runs_of(store, "one")
    assert [parent.info.run_name, first.info.run_name, second.info.run_name] == [
        "0101-0000-demo",
        "0-continent",
        "1-continent",
    ]
    assert first.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.params == {"seed": "1", "slow.lr": "0.0003", "slow.off": "None", "x": "{}"}
    assert parent.data.metrics == {"score/continent": 0.5}
    assert first.data.metrics == {"slow/reward": 0.75}
    history = client(store).get_metric_history(first.info.run_id, "slow/reward")
    assert [(m.step, m.value) for m in history] == [(1, 0.25), (2, 0.75)]
    assert {run.info.status for run in (parent, first, second)} == {"FINISHED"}


def test_artifacts_lie_beside_the_database_and_nowhere_else(store: Path) -> None:
    tracker = MlflowTracker(store, folder(store / "b"), experiment="two")
    play(tracker, store, range(1))
    parent, stage = runs_of(store, "two")
    place = store / "mlflow-artifacts"
    assert (place / parent.info.run_id / "artifacts" / "report.md").read_text() == "# Zürich"
    assert (place / stage.info.run_id / "artifacts" / "adapter" / "weights.bin").is_file()
    assert not Path("mlruns").exists()


def test_each_text_is_a_version_of_its_prompt_and_an_alias_says_what_a_stage_deployed(
    store: Path,
) -> None:
    braces = Demonstration("{{ x }} {% endraw %}\n", "{# a #} {{question}}")
    lineage = Lineage("demos-labelled", "0" * 12, 0, 0, "base")
    old, new = PromptProgram("Name {it}."), PromptProgram("Nämé it.", (braces,), lineage)
    tracker = MlflowTracker(store, folder(store / "p"), experiment="prompts")
    with tracker.run("0101-demo é", {}):
        tracker.prompts(0, "continent", (Candidate(old, {}),), old)
        tracker.prompts(1, "continent", (Candidate(old, {}), Candidate(new, {})), new)
    again = MlflowTracker(store, folder(store / "p"), experiment="prompts")
    with again.run("0101-demo é", {}):
        again.prompts(1, "continent", (Candidate(old, {}), Candidate(new, {})), new)
    assert (tracker.num_failures, again.num_failures) == (0, 0)
    reader, name = client(store), "0101-demo__.continent"
    assert len(reader.search_prompt_versions(name)) == 2
    for alias, program in (("stage-1", old), ("stage-2", new)):
        kept = reader.load_prompt(f"prompts:/{name}@{alias}")
        assert kept.tags["text_hash"] == program.text_hash
        assert kept.format(question="Peru {{x}}?") == chat_messages(program, "Peru {{x}}?")
    assert kept.tags["optimizer"] == "demos-labelled"
    assert not Path("mlruns").exists()


def test_a_text_that_the_registry_refuses_is_counted_and_the_others_are_kept(store: Path) -> None:
    long, short = PromptProgram("x" * 200_000), PromptProgram("x")
    tracker = MlflowTracker(store, folder(store / "q"), experiment="too long")
    with tracker.run("demo", {}):
        tracker.prompts(0, "continent", (Candidate(long, {}), Candidate(short, {})), long)
    assert tracker.num_failures == 1
    assert [v.version for v in client(store).search_prompt_versions("demo.continent")] == [1]


def cut_short(tracker: Tracker) -> None:
    with tracker.run("demo", {"seed": 1}), tracker.stage(0, "continent"):
        tracker.log({"slow/reward": 0.1}, step=1)
        raise ZeroDivisionError


def test_a_resumed_run_goes_on_in_the_same_mlflow_runs(store: Path) -> None:
    first = MlflowTracker(store, folder(store / "c"), experiment="three")
    with pytest.raises(ZeroDivisionError):
        cut_short(first)
    assert {run.info.status for run in runs_of(store, "three")} == {"FAILED"}

    again = MlflowTracker(store, folder(store / "c"), experiment="three")
    with again.run("demo", {"seed": 2}), again.stage(0, "continent"):
        again.log({"slow/reward": 0.2}, step=2)
    assert (first.num_failures, again.num_failures) == (0, 0)
    parent, stage = runs_of(store, "three")
    assert stage.data.metrics == {"slow/reward": 0.2}
    assert parent.data.params == {"seed": "1"}
    assert {stage.info.status, parent.info.status} == {"FINISHED"}


def test_a_store_that_cannot_be_opened_does_not_stop_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database, and never was one\n" * 100)
    tracker = MlflowTracker(tmp_path, tmp_path)
    with caplog.at_level(logging.WARNING, logger="fastslow.records.tracking.tracker"):
        play(tracker, tmp_path, range(2))
    assert tracker.num_failures > 1
    assert tracker.num_pending > 5
    assert [record.message.partition(",")[0] for record in caplog.records] == [
        "tracking: could not send a message",
        f"tracking: {tracker.num_pending} messages to MLflow are kept in {tmp_path}/tracking.jsonl."
        f" To send them once it is back: fastslow resume {tmp_path}",
    ]
    assert "The run goes on" in caplog.text


def test_a_database_lost_half_way_is_counted_and_warned_of_once(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = MlflowTracker(store, tmp_path, experiment="four")
    caplog.set_level(logging.WARNING, logger="fastslow.records.tracking.tracker")
    with tracker.run("demo", {}):
        run = runs_of(store, "four")[0]
        client(store).delete_run(run.info.run_id)
        tracker.log({"a": 1.0}, step=1)
        tracker.log({"a": 2.0}, step=2)
        client(store).restore_run(run.info.run_id)
    assert tracker.num_failures == 2
    assert len(caplog.records) == 1


def test_a_damaged_ids_file_starts_new_mlflow_runs_and_says_so(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "tracker.json").write_text("{")
    tracker = MlflowTracker(store, tmp_path, experiment="six")
    play(tracker, tmp_path, range(1))
    assert tracker.num_failures == 1
    assert "could not read what an earlier part left" in caplog.text
    assert len(runs_of(store, "six")) == 2


def test_metric_names_that_mlflow_refuses_are_made_acceptable(store: Path) -> None:
    tracker = MlflowTracker(store, folder(store / "e"), experiment="five")
    with tracker.run("demo", {}):
        tracker.log({"score/tâche:1": 1.0}, step=0)
    assert tracker.num_failures == 0
    assert runs_of(store, "five")[0].data.metrics == {"score/t_che_1": 1.0}


def test_telemetry_is_off_and_a_null_tracker_accepts_everything(tmp_path: Path) -> None:
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "true"
    play(NullTracker(), tmp_path, range(1))
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
