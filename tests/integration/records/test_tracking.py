"""The MLflow tracker over a real SQLite store, read back with MLflow's own client."""

import json
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fastslow.config.loading.load import load_resolved
from fastslow.config.tracking import MlflowConfig
from fastslow.core.prompts import Candidate, Demonstration, Lineage, PromptProgram
from fastslow.core.samples import sample_line
from fastslow.core.tracker import TrackedRun, Tracker
from fastslow.core.types import Example, Json
from fastslow.policy.render import chat_messages
from fastslow.records.data import read_data
from fastslow.records.tracking import live as live_module
from fastslow.records.tracking.build import build_tracking
from fastslow.records.tracking.data import fingerprint
from fastslow.records.tracking.live import Tracking
from fastslow.records.tracking.mlflow import MlflowTracker
from tests.support.paths import ROOT
from tests.support.run_folder import config
from tests.support.tracking import tracking_of


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


CONFIG: dict[str, Json] = {"seed": 1, "slow": {"lr": 3e-4, "off": None}, "x": {}}


def tracking(
    tracker: Tracker,
    folder: Path,
    name: str = "0101-0000-demo",
    config: Mapping[str, Json] = CONFIG,
) -> Tracking:
    folder.mkdir(exist_ok=True)
    run = TrackedRun(name, f"identity of {name}", folder, config)
    return tracking_of(run, mlflow=tracker)


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


def play(live: Tracking, folder: Path, stages: range) -> None:
    """A small run: two metrics in each stage, one after, an artifact and a report."""
    adapter = folder / "adapter"
    adapter.mkdir(exist_ok=True)
    (adapter / "weights.bin").write_bytes(b"\0" * 16)
    (folder / "report.md").write_text("# Zürich")
    with live.run():
        for index in stages:
            with live.stage(index, "continent"):
                live.log({"slow/reward": 0.25, "slow/kl": None}, step=1)
                live.log({"slow/reward": 0.75, "slow/loss": float("nan")}, step=2)
                live.artifact(adapter)
            live.log({"score/continent": 0.5}, step=index + 1)
        live.artifact(folder / "report.md")
        text = PromptProgram("Name it.")
        live.prompts(0, "continent", (Candidate(text, {}),), text)


def test_a_sequence_is_a_parent_run_with_one_nested_run_per_stage(store: Path) -> None:
    live = tracking(MlflowTracker(store, experiment="one"), store / "a")
    play(live, store, range(2))
    assert live.num_failures == 0
    parent, first, second = runs_of(store, "one")
    assert [parent.info.run_name, first.info.run_name, second.info.run_name] == [
        "0101-0000-demo",
        "1-continent",
        "2-continent",
    ]
    assert first.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert parent.data.params == {"seed": "1", "slow.lr": "0.0003", "slow.off": "None", "x": "{}"}
    assert parent.data.metrics == {"score/continent": 0.5}
    assert first.data.metrics == {"slow/reward": 0.75}
    history = client(store).get_metric_history(first.info.run_id, "slow/reward")
    assert [(m.step, m.value) for m in history] == [(1, 0.25), (2, 0.75)]
    assert {run.info.status for run in (parent, first, second)} == {"FINISHED"}


def test_artifacts_lie_beside_the_database_and_nowhere_else(store: Path) -> None:
    play(tracking(MlflowTracker(store, experiment="two"), store / "b"), store, range(1))
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
    trackers = [
        tracking(MlflowTracker(store, experiment="prompts"), store / "p", "0101-demo é")
        for _ in range(2)
    ]
    with trackers[0].run():
        trackers[0].prompts(0, "continent", (Candidate(old, {}),), old)
        trackers[0].prompts(1, "continent", (Candidate(old, {}), Candidate(new, {})), new)
    with trackers[1].run():
        trackers[1].prompts(1, "continent", (Candidate(old, {}), Candidate(new, {})), new)
    assert [live.num_failures for live in trackers] == [0, 0]
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
    live = tracking(MlflowTracker(store, experiment="too long"), store / "q", "demo")
    with live.run():
        live.prompts(0, "continent", (Candidate(long, {}), Candidate(short, {})), long)
    assert live.num_failures == 1
    assert [v.version for v in client(store).search_prompt_versions("demo.continent")] == [1]


def cut_short(live: Tracking) -> None:
    with live.run(), live.stage(0, "continent"):
        live.log({"slow/reward": 0.1}, step=1)
        raise ZeroDivisionError


def test_a_resumed_run_continues_in_the_same_mlflow_runs(store: Path) -> None:
    first = tracking(MlflowTracker(store, experiment="three"), store / "c", config={"seed": 1})
    with pytest.raises(ZeroDivisionError):
        cut_short(first)
    assert {run.info.status for run in runs_of(store, "three")} == {"FAILED"}

    again = tracking(MlflowTracker(store, experiment="three"), store / "c", config={"seed": 2})
    with again.run(), again.stage(0, "continent"):
        again.log({"slow/reward": 0.2}, step=2)
    assert (first.num_failures, again.num_failures) == (0, 0)
    parent, stage = runs_of(store, "three")
    assert stage.data.metrics == {"slow/reward": 0.2}
    assert parent.data.params == {"seed": "1"}
    assert {stage.info.status, parent.info.status} == {"FINISHED"}


def test_after_a_resume_only_what_came_after_the_resume_point_counts_as_told(store: Path) -> None:
    """A step and a later cycle may report one value under one name at one number."""
    first = tracking(MlflowTracker(store, experiment="equal"), store / "s")
    with first.run(), first.stage(0, "continent"):
        first.log({"kl": 0.0}, step=1, time=10.0)
        first.log({"kl": 0.0}, step=2, time=30.0)
    run = TrackedRun("0101-0000-demo", "identity of 0101-0000-demo", store / "s", CONFIG, 20.0)
    resumed = tracking_of(run, mlflow=MlflowTracker(store, experiment="equal"))
    with resumed.run(), resumed.stage(0, "continent"):
        resumed.log({"kl": 0.0}, step=2, time=40.0)  # came before
        resumed.log({"kl": 0.0}, step=1, time=50.0)  # did not
    assert (first.num_failures, resumed.num_failures) == (0, 0)
    _, found = runs_of(store, "equal")
    history = client(store).get_metric_history(found.info.run_id, "kl")
    assert sorted((m.step, m.timestamp) for m in history) == [(1, 10_000), (1, 50_000), (2, 30_000)]


def test_a_store_that_cannot_be_opened_does_not_stop_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database, and never was one\n" * 100)
    live = tracking(MlflowTracker(tmp_path), tmp_path)
    with caplog.at_level(logging.WARNING, logger=live_module.__name__):
        play(live, tmp_path, range(2))
    assert live.num_failures > 5
    first, last = (record.message for record in caplog.records)
    assert first.startswith("tracking: a call of mlflow failed, got OSError: ")
    assert "The run continues" in first
    assert last == (
        f"tracking: {live.num_failures} calls of mlflow failed. To send what was missed: "
        f"fastslow track {tmp_path}"
    )
    assert json.loads((tmp_path / "tracker.json").read_text())["missed"] == ["mlflow"]


def test_a_run_deleted_half_way_is_counted_and_warned_of_once(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live = tracking(MlflowTracker(store, experiment="four"), tmp_path)
    caplog.set_level(logging.WARNING, logger=live_module.__name__)
    with live.run():
        run = runs_of(store, "four")[0]
        client(store).delete_run(run.info.run_id)
        live.log({"a": 1.0}, step=1)
        live.log({"a": 2.0}, step=2)
        client(store).restore_run(run.info.run_id)
    assert live.num_failures == 2
    assert len(caplog.records) == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"identity": 1}', '{"identity": "\' or \'1"}'])
def test_a_damaged_identity_is_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "tracker.json").write_text(content)
    build_tracking(config(tmp_path), tmp_path)
    card = json.loads((tmp_path / "tracker.json").read_text())
    assert len(card["identity"]) == 32
    assert card["missed"] == []


def test_metric_names_that_mlflow_refuses_are_made_acceptable(store: Path) -> None:
    live = tracking(MlflowTracker(store, experiment="five"), store / "e")
    with live.run():
        live.log({"score/tâche:1": 1.0}, step=0)
    assert live.num_failures == 0
    assert runs_of(store, "five")[0].data.metrics == {"score/t_che_1": 1.0}


def test_telemetry_is_off_and_a_run_without_a_tracker_writes_nothing(tmp_path: Path) -> None:
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "true"
    off = config(tmp_path).model_copy(update={"tracking": None})
    play(build_tracking(off, tmp_path), tmp_path, range(1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "report.md"]


DEMO = ROOT / "runs" / "reference" / "demo"


@pytest.fixture(scope="module")
def demo(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kept run of the demonstration, with some rollouts, sent to the store."""
    run = Path(shutil.copytree(DEMO, tmp_path_factory.mktemp("demo") / "demo"))
    (run / "stages" / "000-country_continent").mkdir(parents=True)
    (run / "rollouts").mkdir()
    for cycle in range(2):
        lines = [
            sample_line("a" * 12, f"e{n}", f"Q{n} {KEY}", "A" * 9000, "reward 0.5 (no)")
            for n in range(9)
        ]
        path = run / "rollouts" / f"000-00{cycle}-country_continent.txt"
        path.write_text("".join(f"step {n} | {line}\n" for n, line in enumerate(lines)))
    send(run, store)
    return run


KEY = "sk-" + "a1B2" * 8


def send(run: Path, store: Path) -> None:
    loaded = load_resolved(run / "config.json").config
    section = MlflowConfig(uri=f"sqlite:///{store / 'mlflow.db'}", experiment="the demonstration")
    example = Example("Peru", "Peru?", "South America")
    build_tracking(
        loaded.model_copy(update={"tracking": section, "runs_dir": str(store)}), run
    ).send_run({"country_continent": [example]})


def test_the_run_of_the_sequence_has_what_the_report_begins_with(store: Path, demo: Path) -> None:
    report = json.loads((DEMO / "report.json").read_text())
    parent, first, *_ = runs_of(store, "the demonstration")
    metrics = parent.data.metrics
    for name in ("average_accuracy", "learning_accuracy", "forgetting_chaudhry", "bwt_gem"):
        assert metrics[name] == pytest.approx(report["metrics"][name]["value"], abs=5e-7), name
    for task, score in zip(report["tasks"], report["scores"][-1], strict=True):
        assert metrics[f"score/{task}"] == pytest.approx(score, abs=5e-7)
    assert metrics["rollouts"] == report["rollouts"]["fast"] + report["rollouts"]["slow"]
    assert metrics["minutes"] < report["seconds"] / 60
    history = client(store).get_metric_history(parent.info.run_id, "average_accuracy")
    expected = [s["metrics"]["average_accuracy"]["value"] for s in report["stages"]]
    assert [m.step for m in history] == [1, 2, 3]
    assert [m.value for m in history] == pytest.approx(expected, abs=5e-7)
    assert "- forgetting_chaudhry: 1/(T-1) sum_{j<T}" in parent.data.tags["mlflow.note.content"]
    assert (first.info.run_name, first.data.tags["stage"]) == ("1-country_continent", "1")
    assert not [name for name in first.data.metrics if name.startswith(("score/", "kl_"))]


def rows_of(store: Path, dataset: str) -> list[Any]:
    """Of an evaluation dataset; MLflow's own way reads the store of its global address."""
    rows, _ = client(store)._tracking_client.store._load_dataset_records(dataset)
    return list(rows)


def test_the_run_names_its_data_by_fingerprints(store: Path, demo: Path) -> None:
    parent, *_ = runs_of(store, "the demonstration")
    inputs = {(i.dataset.name, i.tags[0].value): i.dataset for i in parent.inputs.dataset_inputs}
    assert len(inputs) == 12 == len(parent.inputs.dataset_inputs)  # the task of the probe too
    test = inputs["country_continent", "test"]
    assert json.loads(test.profile) == {"num_rows": 96}
    hashes = dict(read_data(demo)["country_continent"].test)
    assert test.digest == fingerprint(hashes)
    first = next(iter(hashes))
    assert fingerprint(hashes | {first: hashes[first][::-1]}) != test.digest
    experiment = parent.info.experiment_id
    [dataset] = client(store).search_datasets([experiment])
    assert dataset.name == f"country_continent-{test.digest}-1"
    [row] = rows_of(store, dataset.dataset_id)
    assert row.inputs == {"question": "Peru?"}
    assert row.expectations == {"expected_response": "South America"}


def test_the_experiment_shows_its_prompts_and_the_stage_the_deployed_one(
    store: Path, demo: Path
) -> None:
    parent, first, *_ = runs_of(store, "the demonstration")
    experiment = parent.info.experiment_id
    prompts = client(store).search_prompts(f"experiment_id = '{experiment}'")
    assert [prompt.name for prompt in prompts] == ["demo.country_continent"]
    [link] = json.loads(first.data.tags["mlflow.linkedPrompts"])
    linked = client(store).load_prompt(f"prompts:/{link['name']}/{link['version']}")
    [chosen] = [
        p
        for p in json.loads((DEMO / "report.json").read_text())["prompts"].items()
        if p[0] == "country_continent"
    ]
    assert linked.tags["text_hash"] == chosen[1]["text_hash"]


def test_a_prompt_is_linked_to_its_experiment_alone_also_where_mlflow_is_slow_to_link_it(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow links it to its global experiment too, in a thread that writes the same tag."""
    from mlflow import MlflowClient

    get_prompt = MlflowClient.get_prompt

    def slow(*words: Any) -> Any:
        time.sleep(0.2)
        return get_prompt(*words)

    monkeypatch.setattr(MlflowClient, "get_prompt", slow)
    live = tracking(MlflowTracker(store, experiment="links"), store / "l", "links")
    prompt = PromptProgram("Name it.")
    with live.run():
        live.prompts(0, "continent", (Candidate(prompt, {}),), prompt)
    for thread in threading.enumerate():
        if thread.name.startswith("link_prompt"):
            thread.join()
    experiment = client(store).get_experiment_by_name("links").experiment_id
    tags = client(store).get_prompt("links.continent").tags
    assert (live.num_failures, tags["_mlflow_experiment_ids"]) == (0, f",{experiment},")


def test_a_few_rollouts_of_a_stage_are_traces_without_keys(store: Path, demo: Path) -> None:
    parent, first, *_ = runs_of(store, "the demonstration")
    traces = client(store).search_traces(
        locations=[parent.info.experiment_id], run_id=first.info.run_id
    )
    assert len(traces) == 4  # the first and the last of each cycle
    for trace in traces:
        [span] = trace.data.spans
        assert re.fullmatch(r"Q[08] \[removed\]", span.inputs["question"])
        assert len(span.outputs) == 1000
        assert trace.info.tags["outcome"] == "reward 0.5 (no)"
        assert KEY not in json.dumps(trace.to_dict())


def test_sending_the_demonstration_again_makes_nothing_twice(
    store: Path, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # where MLflow would make a database of its global address

    def everything() -> Any:
        reader = client(store)
        runs = runs_of(store, "the demonstration")
        experiment = runs[0].info.experiment_id
        return (
            [
                (
                    run.data.to_dictionary(),
                    len(run.inputs.dataset_inputs),
                    {
                        n: len(reader.get_metric_history(run.info.run_id, n))
                        for n in run.data.metrics
                    },
                )
                for run in runs
            ],
            sorted(t.info.trace_id for t in reader.search_traces(locations=[experiment])),
            [len(rows_of(store, d.dataset_id)) for d in reader.search_datasets([experiment])],
            len(reader.search_prompt_versions("demo.country_continent")),
        )

    before = everything()
    send(demo, store)
    assert list(tmp_path.iterdir()) == []
    assert everything() == before


def test_a_folder_of_the_same_name_takes_no_prompt_of_another_run(store: Path) -> None:
    """The prompt registry is the user's: the name of a folder decides nothing in it."""
    name, task = "0101-0000-mine", "con'tinent\u202e"
    ours, theirs = (
        TrackedRun(name, identity * 32, store / f"name {identity}", CONFIG)
        for identity in ("a", "b")
    )
    for run, text in ((ours, PromptProgram("Mine.")), (theirs, PromptProgram("{{ 7 * 7 }} owned"))):
        run.folder.mkdir()
        live = tracking_of(run, mlflow=MlflowTracker(store, experiment="names"))
        with live.run(), live.stage(0, task):
            live.prompts(0, task, (Candidate(text, {}),), text)
            live.log({"slow/re`ward' = ''": 1.0}, step=1)
        assert live.num_failures == 0, live.trackers[0].first_failure
    reader, prompt = client(store), "0101-0000-mine.con_tinent_"
    versions = {
        entry: [version.tags["text_hash"] for version in reader.search_prompt_versions(entry)]
        for entry in (prompt, f"{prompt}.{'b' * 32}")
    }
    assert list(versions.values()) == [
        [PromptProgram("Mine.").text_hash],
        [PromptProgram("{{ 7 * 7 }} owned").text_hash],
    ]
    assert reader.load_prompt(f"prompts:/{prompt}@stage-1").tags["fastslow.id"] == ours.identity
    tags = {run.info.run_id: run.data.tags["fastslow.id"] for run in runs_of(store, "names")}
    assert sorted(tags.values()) == [
        f"{run.identity}/{part}" for run in (ours, theirs) for part in ("run", "stage-0")
    ]
