"""Runs whose completions servers draw: the same records, faults, and what is refused before."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_socket import enable_socket

from fastslow.core.errors import ConfigError, EngineError, StageError
from fastslow.core.types import Sampling
from fastslow.loop import launch
from fastslow.policy.engine.vllm import client, proofs
from fastslow.records.events import StepEvent
from fastslow.records.jsonl import read_events, read_scores
from tests.support.runs import newest, no_report, outcome, start
from tests.support.vllm_double import VllmDouble

pytestmark = pytest.mark.network
SMALL = (
    "stages=[{task: first, cycles: 1}]",
    "fast=null",
    "slow.group=2",
    "tasks={first: {use: 'tests.support.toy_tasks:letters'}}",
    "evaluation={test_examples: 2, validation_examples: 2, kl_examples: 0, channel_split: false, "
    "neutral: false, geometry: false, proxies: false}",
)


@pytest.fixture(scope="module")
def double(tiny_folder: Path) -> Iterator[VllmDouble]:
    enable_socket()
    with VllmDouble(tiny_folder) as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits and proofs are short."""
    monkeypatch.setattr(client, "BACKOFF_S", 0.01)
    monkeypatch.setattr(proofs, "PROOF", Sampling(3, 1.0))
    monkeypatch.setattr("fastslow.loop.build.ROWS", 2)
    monkeypatch.setattr("fastslow.loop.build.DEMONSTRATIONS", 1)


@pytest.fixture
def toy(tiny_folder: Path, double: VllmDouble) -> list[str]:
    """Overrides of a run that draws from the double."""
    engine = f"{{kind: vllm, urls: [{double.url}], retries: 2, timeout_s: 20}}"
    return [f"model.name={tiny_folder}", *SMALL, f"engine={engine}"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, double: VllmDouble) -> Path:
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    engine = f"engine={{kind: vllm, urls: [{double.url}]}}"
    return start(folder, [f"model.name={tiny_folder}", *SMALL, engine])


def records(run: Path) -> dict[str, Any]:
    """What the run recorded, with no trace of seconds that servers took."""
    left_behind = outcome(run)
    for event in left_behind["metrics"]:
        event.metrics.pop("slow/swap_s", None)
    for event in left_behind["events"]:
        getattr(event, "metrics", {}).pop("slow/swap_s", None)
    return left_behind


def test_a_run_has_the_records_of_one_that_draws_by_itself(
    tmp_path: Path, tiny_folder: Path, whole: Path
) -> None:
    local = start(tmp_path, [f"model.name={tiny_folder}", *SMALL])
    ours, theirs = (
        [(r.row, r.sample.example, r.sample.completion) for r in read_scores(run / "scores.jsonl")]
        for run in (local, whole)
    )
    assert ours == theirs
    metrics = [
        [e.metrics for e in read_events(run / "metrics.jsonl") if isinstance(e, StepEvent)]
        for run in (local, whole)
    ]
    for local_figures, figures in zip(*metrics, strict=True):
        extra = {name: figures[name] for name in figures.keys() - local_figures.keys()}
        assert {*extra} == {"slow/mismatch_kl", "slow/masked_share", "slow/swap_s"}
        assert 0 <= extra["slow/mismatch_kl"] < 1e-9
        assert extra["slow/masked_share"] == 0
        same = {name: value for name, value in figures.items() if name not in extra}
        assert same == pytest.approx(local_figures, abs=1e-4)
    assert not (whole / "served").exists()


def test_a_server_that_dies_in_an_update_leaves_a_run_that_is_resumed(
    tmp_path: Path, toy: list[str], double: VllmDouble, whole: Path
) -> None:
    drawn = 0

    def dying(path: str, body: dict[str, Any]) -> int | None:
        nonlocal drawn
        drawn += path == "/v1/completions" and body["temperature"] == 1 and body["max_tokens"] > 3
        return -1 if drawn > 6 else None  # four rows of an update, and some of the next

    double.fault = dying
    with pytest.raises(StageError) as raised:
        start(tmp_path, toy)
    double.kill()
    run = newest(tmp_path)
    assert raised.value.exit_code == 1
    for words in ("stage 1/1 (first)", f"the vLLM server {double.url}", f"fastslow resume {run}"):
        assert words in str(raised.value)
    with pytest.raises(ConfigError, match=r"engine.urls: the vLLM server .* does not answer"):
        launch.resume(run, no_report)
    double.revive()
    launch.resume(run, no_report)
    resumed, undisturbed = records(run), records(whole)
    for kind in ("scores", "metrics", "files", "state"):
        assert resumed[kind] == undisturbed[kind]


def test_a_server_that_fails_before_the_first_stage_leaves_a_run_that_says_how_to_go_on(
    tmp_path: Path, toy: list[str], double: VllmDouble
) -> None:
    double.fault = lambda path, body: 500 if path == "/v1/completions" else None
    with pytest.raises(EngineError) as raised:
        start(tmp_path, toy)
    double.fault = lambda path, body: None
    assert raised.value.exit_code == 1
    assert f"fastslow resume {newest(tmp_path)}" in str(raised.value)


def test_a_server_that_is_not_there_or_has_another_model_is_refused_before_a_run_is_made(
    tmp_path: Path, toy: list[str], double: VllmDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"127.0.0.1:9: it does not answer, got ConnectError"):
        start(tmp_path, [*toy, "engine.urls=[http://127.0.0.1:9]"])
    card = {"id": "another", "root": "/models/another", "parent": None}
    monkeypatch.setattr(double, "_cards", lambda: [card])
    with pytest.raises(ConfigError, match=r"serves another model than .* Known there: another\."):
        start(tmp_path, toy)
    assert not (tmp_path / "runs").exists()
