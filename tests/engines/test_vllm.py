"""A real vLLM server on the CPU under the demonstration's model: draws, proofs, faults.

Skipped without an interpreter that has vLLM: `make vllm`, or one named in FASTSLOW_VLLM_PYTHON.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fastslow.config.loading.load import load_config
from fastslow.core.errors import ConfigError, EngineError
from fastslow.core.types import Sampling, TokenIds
from fastslow.loop import launch
from fastslow.loop.build import proof_prompts
from fastslow.policy.engine.vllm.client import Server
from fastslow.policy.engine.vllm.publish import Versions
from fastslow.policy.engine.vllm.sampler import VllmSampler
from fastslow.policy.engine.vllm.server import (
    CPU_ARGUMENTS,
    KEY_VARIABLE,
    ManagedServer,
    interpreter,
    managed_server,
)
from fastslow.policy.model_store import resolve
from fastslow.policy.policy import Policy, load_policy, with_adapter
from fastslow.records.events import StepEvent
from fastslow.records.jsonl import read_events, read_scores
from fastslow.task.registry import build_task
from tests.support.paths import ROOT
from tests.support.runs import no_report

pytestmark = [pytest.mark.network, pytest.mark.timeout(3600)]

DEMO = ROOT / "configs" / "experiments" / "demo.yaml"
SMALL = (
    "stages=[{task: country_continent, cycles: 1}]",
    "cycle={optimizer_steps: 3, problems: 4, pool: 8}",
    "fast={kind: demos, population: 2, demonstrations: 2, metric_calls: 48}",
    "slow.group=4",
    "evaluation={test_examples: 12, validation_examples: 4, kl_examples: 2, curve_examples: 0}",
    "probe=null",
    "tracking=null",
)
"""The demonstration's first stage, with few updates."""
LORA = ("--enable-lora", "--max-lora-rank", "32", "--max-loras", "2", "--max-cpu-loras", "8")
TIE = 1e-4
"""Nats between two tokens that rounding may put in either order."""


@pytest.fixture(scope="module", autouse=True)
def python() -> str:
    try:
        return interpreter(None)
    except ConfigError as error:
        pytest.skip(f"no vLLM: {error}")


@pytest.fixture(scope="module")
def model() -> str:
    try:
        return resolve("smollm2-135m-instruct").path_or_id
    except Exception as error:
        pytest.skip(f"the demonstration's model is not here: {error}")


def started(python: str, model: str, folder: Path, *arguments: str) -> Any:
    words = ["--model", model, "--dtype", "float32", "--generation-config", "vllm"]
    words += ["--max-model-len", "2048", *CPU_ARGUMENTS, *arguments]
    return managed_server(python, words, folder, cpu=True)


@pytest.fixture(scope="module")
def served(
    python: str, model: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ManagedServer]:
    from pytest_socket import enable_socket

    enable_socket()
    with started(python, model, tmp_path_factory.mktemp("vllm"), *LORA) as own:
        server = Server(own.url, key=own.key)
        own.wait_until_up(server, 900)
        server.close()
        yield own


@pytest.fixture(scope="module")
def prompts(model: str) -> list[TokenIds]:
    """As a run asks them: most begin with the same demonstrations, some blocks of a cache."""
    return proof_prompts(load_policy(model), [build_task("country_continent", None, None)])


@pytest.fixture
def policy(model: str) -> Policy:
    """An adapter that has moved."""
    policy = with_adapter(
        load_policy(model), rank=16, alpha=32, target_modules="all-linear", seed=1
    )
    move(policy, seed=3)
    return policy


def move(policy: Policy, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = policy.adapters.copied()
    for name, weight in weights.items():
        if ".lora_B." in name:
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.003)
    policy.adapters.put(weights)


@pytest.fixture
def sampler(
    policy: Policy, served: ManagedServer, prompts: list[TokenIds], tmp_path: Path
) -> Iterator[VllmSampler]:
    servers = [Server(served.url, key=served.key)]
    sampler = VllmSampler(policy, servers, Versions(tmp_path, "run", tmp_path.name), prompts)
    yield sampler
    sampler.close()


def is_tie(policy: Policy, prompt: TokenIds, tokens: TokenIds, others: TokenIds) -> bool:
    """Whether two greedy completions part where two tokens are all but equally likely."""
    at = next(i for i, (a, b) in enumerate(zip(tokens, others, strict=False)) if a != b)
    pair = [(*tokens[:at], tokens[at]), (*tokens[:at], others[at])]
    ours, theirs = (row[-1] for row in policy.scorer.logprobs([prompt] * 2, pair))
    return abs(ours - theirs) < TIE


@pytest.mark.parametrize("adapter", [False, True])
def test_greedy_draws_are_those_of_the_torch_engine_up_to_ties(
    policy: Policy, sampler: VllmSampler, prompts: list[TokenIds], adapter: bool
) -> None:
    greedy, seeds = Sampling(12), [0] * len(prompts)
    local = policy.sampler.sample(prompts, greedy, seeds, adapter=adapter)
    remote = sampler.sample(prompts, greedy, seeds, adapter=adapter)
    for prompt, ours, theirs in zip(prompts, local, remote, strict=True):
        if ours.token_ids == theirs.token_ids:
            assert (ours.text, ours.finish) == (theirs.text, theirs.finish)
            assert theirs.logprobs == pytest.approx(ours.logprobs, abs=1e-4)
        else:
            assert is_tie(policy, prompt, ours.token_ids, theirs.token_ids)
    assert {row.finish for row in remote} <= {"stop", "length"}
    for row in remote:
        ends = row.token_ids[-1] in sampler._stops
        assert (row.finish == "stop") == ends


def test_draws_repeat_by_their_seeds(sampler: VllmSampler, prompts: list[TokenIds]) -> None:
    warm, seeds = Sampling(12, 1.0), list(range(len(prompts)))
    first = sampler.sample(prompts, warm, seeds)
    assert [r.token_ids for r in sampler.sample(prompts, warm, seeds)] == [
        r.token_ids for r in first
    ]
    same = sampler.sample([prompts[0]] * 8, warm, range(8))
    assert len({row.token_ids for row in same}) > 1


def test_the_base_and_earlier_adapters_are_served_side_by_side(
    policy: Policy, sampler: VllmSampler, prompts: list[TokenIds]
) -> None:
    warm, seeds = Sampling(8, 1.0), list(range(len(prompts)))
    earlier = policy.adapters.copied()
    move(policy, seed=4)
    present = sampler.sample(prompts, warm, seeds)
    with policy.as_of(earlier):
        old = sampler.sample(prompts, warm, seeds)
        trained = policy.scorer.logprobs(prompts, [row.token_ids for row in old])
    for row, expected in zip(old, trained, strict=True):
        assert row.logprobs == pytest.approx(expected, abs=1e-3)
    base = sampler.sample(prompts, warm, seeds, adapter=False)
    assert present != old != base
    assert sampler.sample(prompts, warm, seeds)[0].token_ids == present[0].token_ids


def test_a_name_loaded_again_in_place_is_caught_with_its_stale_cache(
    policy: Policy,
    served: ManagedServer,
    prompts: list[TokenIds],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What vLLM answers then is a mixture: vllm-project/vllm issue 42125."""

    class InPlace(Versions):
        def name(self, weights: str) -> str:
            return f"{tmp_path.name}-always"

        def write(self, model: Any, weights: str) -> Path:
            place = super().write(model, weights)
            fixed = self.folder / "fixed"
            fixed.mkdir(exist_ok=True)
            for file in place.iterdir():
                (fixed / file.name).write_bytes(file.read_bytes())
            return fixed

    inner = Server._send

    def in_place(server: Server, method: str, path: str, body: Any, **options: Any) -> Any:
        if path == "/v1/load_lora_adapter":
            body = body | {"load_inplace": True}
        return inner(server, method, path, body, **options)

    monkeypatch.setattr(Server, "_send", in_place)
    servers = [Server(served.url, key=served.key)]
    sampler = VllmSampler(policy, servers, InPlace(tmp_path, "run", "same"), prompts)
    sampler.prove()
    move(policy, seed=5)
    del sampler._places[0].proven[f"{tmp_path.name}-always"]
    with pytest.raises(EngineError, match="neither the trainer's nor the base: an earlier vers"):
        sampler.prove()
    sampler.close()


def test_a_server_without_adapters_is_caught(
    python: str, model: str, policy: Policy, prompts: list[TokenIds], tmp_path: Path
) -> None:
    with started(python, model, tmp_path) as own:
        server = Server(own.url, key=own.key)
        own.wait_until_up(server, 900)
        sampler = VllmSampler(policy, [server], Versions(tmp_path, "run", "x"), prompts)
        with pytest.raises(EngineError, match=r"does not load the adapter .* --enable-lora"):
            sampler.prove()
        sampler.close()


def test_the_first_stage_of_the_demonstration_is_drawn_by_a_server(
    served: ManagedServer, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, served.key)
    engine = f"engine={{kind: vllm, urls: [{served.url}]}}"
    loaded = load_config([DEMO], [*SMALL, f"runs_dir={tmp_path}", engine])
    run = launch.train(loaded, ["fastslow", "train"], no_report)
    steps = [e for e in read_events(run / "metrics.jsonl") if isinstance(e, StepEvent)]
    assert len(steps) == 3
    for step in steps:
        figures: Any = step.metrics
        assert 0 <= figures["slow/mismatch_kl"] < 1e-4
        assert figures["slow/masked_share"] == 0
        assert figures["slow/swap_s"] > 0
    assert json.loads((run / "run.json").read_text())["state"] == "finished"
    assert served.key not in "".join(p.read_text() for p in run.glob("*.json*"))
    require_no_row_twice(run)


def require_no_row_twice(run: Path) -> None:
    rows = [
        (r.row, r.cycle, r.sample.task, r.sample.example, r.sample.sample, r.sample.prompt_policy)
        for r in read_scores(run / "scores.jsonl")
    ]
    assert len(rows) == len(set(rows))
    steps = [e.step for e in read_events(run / "metrics.jsonl") if isinstance(e, StepEvent)]
    assert steps == sorted(set(steps))


def fastslow(*words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "fastslow", *words],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def vllm_processes(run: Path) -> list[int]:
    """Processes of servers whose log lies in the run's folder, those of the engine included."""
    log, pids = str(run / "vllm.log"), []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "fd" / "1").readlink() == Path(log):
                pids.append(int(place.name))
        except OSError:
            continue
    return sorted(pids)


def wait_for(what: Callable[[], Any], process: subprocess.Popen[bytes]) -> Any:
    while process.poll() is None:
        if result := what():
            return result
        time.sleep(0.2)
    raise AssertionError(process.communicate()[1].decode()[-2000:])


def steps_of(folder: Path) -> int:
    files = list(folder.glob("*/metrics.jsonl"))
    return files[0].read_text().count("\n") if files else 0


def test_a_managed_server_and_its_run_outlive_neither_each_other_nor_their_records(
    tmp_path: Path, model: str
) -> None:
    """The server is killed in mid-update, then the run is, and in the end it has finished."""
    words = [str(DEMO), *SMALL, f"runs_dir={tmp_path}", "engine={kind: vllm, managed: true}"]
    training = fastslow("train", *words)
    wait_for(lambda: steps_of(tmp_path) >= 1, training)
    [run] = (card.parent for card in tmp_path.glob("*/run.json"))
    os.kill(vllm_processes(run)[0], signal.SIGKILL)
    message = training.communicate()[1].decode()
    assert training.returncode == 1
    assert f"fastslow resume {run}" in message
    assert "the vLLM server ended with -9" in message
    assert vllm_processes(run) == []

    first = steps_of(tmp_path)
    resumed = fastslow("resume", str(run))
    wait_for(lambda: steps_of(tmp_path) > first, resumed)
    resumed.kill()
    resumed.communicate()
    deadline = time.monotonic() + 120
    while vllm_processes(run) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert vllm_processes(run) == []

    last = fastslow("resume", str(run))
    message = last.communicate()[1].decode()
    assert last.returncode == 0, message
    assert json.loads((run / "run.json").read_text())["state"] == "finished"
    require_no_row_twice(run)
