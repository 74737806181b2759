"""Completions drawn by servers: the same as the trainer's, proven, and faults that end a run."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fastslow.core.errors import EngineError
from fastslow.core.types import Completion, Sampling
from fastslow.policy.engine.vllm import client, proofs
from fastslow.policy.engine.vllm.client import Server
from fastslow.policy.engine.vllm.publish import Versions
from fastslow.policy.engine.vllm.sampler import VllmSampler
from fastslow.policy.engine.vllm.server import managed_server
from fastslow.policy.policy import Policy
from tests.support.tiny import save_outspoken
from tests.support.vllm_double import VllmDouble

pytestmark = pytest.mark.network

PROMPTS = [tuple(range(65, 65 + length)) for length in (9, 14, 9, 20)]
WARM, PROOF = Sampling(6, 1.0), Sampling(4, 1.0)


@pytest.fixture
def double(tiny_folder: Path) -> Iterator[VllmDouble]:
    with VllmDouble(tiny_folder) as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits and proofs are short."""
    monkeypatch.setattr(client, "BACKOFF_S", 0.01)
    monkeypatch.setattr(proofs, "PROOF", PROOF)


@pytest.fixture(scope="module")
def outspoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another base with the same tokenizer."""
    return save_outspoken(tmp_path_factory.mktemp("outspoken"))


def sampler_of(policy: Policy, folder: Path, *doubles: VllmDouble, **options: Any) -> VllmSampler:
    servers = [
        Server(double.url, **({"retries": 2, "timeout_s": 20.0} | options)) for double in doubles
    ]
    return VllmSampler(policy, servers, Versions(folder, "run", "start"), PROMPTS, concurrency=4)


@pytest.fixture
def sampler(moved: Policy, tmp_path: Path, double: VllmDouble) -> Iterator[VllmSampler]:
    sampler = sampler_of(moved, tmp_path, double)
    yield sampler
    sampler.close()


def assert_same(rows: Sequence[Completion], others: Sequence[Completion]) -> None:
    for row, other in zip(rows, others, strict=True):
        assert (row.token_ids, row.text, row.finish) == (other.token_ids, other.text, other.finish)
        assert row.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_rows_are_those_of_the_trainers_engine_under_every_weights(
    moved: Policy, sampler: VllmSampler
) -> None:
    local, seeds = moved.sampler, [3, 4, 5, 2**63 - 1]
    base = local.sample(PROMPTS, WARM, seeds, adapter=False)
    tuned = local.sample(PROMPTS, WARM, seeds)
    assert tuned != base
    assert_same(sampler.sample(PROMPTS, WARM, seeds), tuned)
    assert_same(sampler.sample(PROMPTS, WARM, seeds, adapter=False), base)
    with moved.as_of("base"):  # switched off in the trainer
        assert_same(sampler.sample(PROMPTS, WARM, seeds), base)
    other = {name: weight * 2 for name, weight in moved.adapters.copied().items()}
    with moved.adapters.holding(other):
        assert_same(sampler.sample(PROMPTS, WARM, seeds), local.sample(PROMPTS, WARM, seeds))
    assert_same(sampler.sample(PROMPTS, WARM, seeds), tuned)
    assert_same(
        sampler.sample(PROMPTS, Sampling(5), seeds), local.sample(PROMPTS, Sampling(5), [0] * 4)
    )
    assert sampler.num_rollouts == 5 * len(PROMPTS)
    assert sampler.swap_s > 0


def test_a_version_is_a_folder_and_a_name_that_stand_for_its_bits(
    moved: Policy,
    sampler: VllmSampler,
    double: VllmDouble,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastslow.policy.engine.vllm.sampler.KEPT_VERSIONS", 2)
    weights = moved.weights_fingerprint()
    sampler.sample(PROMPTS, WARM, [0] * 4)
    assert list(double.adapters) == [f"run-start-{weights}"]
    sampler.sample(PROMPTS, WARM, [0] * 4)
    loads = [body for path, body in double.requests if path == "/v1/load_lora_adapter"]
    folder = tmp_path / "run" / "start" / weights
    assert loads == [
        {"lora_name": f"run-start-{weights}", "lora_path": str(folder), "load_inplace": False}
    ]
    assert not list(folder.parent.glob(".tmp-*"))
    first = moved.adapters.copied()
    for factor in (1.5, 2.0):
        moved.adapters.scale(first, factor)
        sampler.sample(PROMPTS[:1], WARM, [0])
    assert len(double.adapters) == len(list(folder.parent.iterdir())) == 2
    assert f"run-start-{weights}" not in double.adapters
    sampler.close()
    assert not double.adapters
    assert not (tmp_path / "run").exists()


def test_every_row_has_a_seed_of_its_own_and_no_default_reaches_it(
    sampler: VllmSampler, double: VllmDouble
) -> None:
    double.requests.clear()
    sampler.sample(PROMPTS, WARM, [11, 12, 13, 14], adapter=False)
    bodies = [b for p, b in double.requests if p == "/v1/completions" and b["max_tokens"] == 6]
    assert sorted(body["seed"] for body in bodies) == [11, 12, 13, 14]
    neutral = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "n": 1}
    assert all(neutral.items() <= body.items() for body in bodies)


def test_rows_are_dealt_out_to_servers_and_come_back_in_order(
    moved: Policy, tiny_folder: Path, double: VllmDouble, tmp_path: Path
) -> None:
    with VllmDouble(tiny_folder) as second:
        both = sampler_of(moved, tmp_path, double, second)
        rows = both.sample(PROMPTS, WARM, [1, 2, 3, 4])
        assert_same(rows, moved.sampler.sample(PROMPTS, WARM, [1, 2, 3, 4]))
        for server in (double, second):
            drawn = [b["seed"] for p, b in server.requests if b.get("max_tokens") == 6]
            assert len(drawn) == 2
        both.close()


def test_an_adapter_from_before_is_not_taken_for_the_present_one(
    moved: Policy, sampler: VllmSampler, double: VllmDouble
) -> None:
    sampler.sample(PROMPTS, WARM, [0] * 4)
    [stale] = double.adapters
    moved.adapters.scale(moved.adapters.copied(), 1.1)
    double.model_for = lambda name: name if name == double.name else stale
    with pytest.raises(
        EngineError, match=r"neither the trainer's nor the base: an earlier version"
    ):
        sampler.sample(PROMPTS, WARM, [0] * 4)


def test_an_adapter_changed_in_place_is_seen_at_the_next_proof(
    moved: Policy, sampler: VllmSampler, double: VllmDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastslow.policy.engine.vllm.sampler.ROWS_PER_PROOF", 8)
    sampler.sample(PROMPTS, WARM, [0] * 4)
    [engine] = double.adapters.values()
    for name, weight in engine.model.named_parameters():
        weight.data.mul_(1.2 if "lora_B" in name else 1)
    sampler.sample(PROMPTS, WARM, [0] * 4)
    with pytest.raises(EngineError, match="not draw with the adapter that was trained"):
        sampler.sample(PROMPTS, WARM, [0] * 4)


def test_an_adapter_that_is_loaded_but_not_applied_is_seen(
    sampler: VllmSampler, double: VllmDouble
) -> None:
    double.model_for = lambda name: double.name
    with pytest.raises(EngineError, match="as the base does: the adapter is loaded but not app"):
        sampler.sample(PROMPTS, WARM, [0] * 4)


def test_a_server_whose_answers_are_the_bases_is_seen_where_the_trainer_agrees(
    moved: Policy, sampler: VllmSampler, double: VllmDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check (a) alone: the distance to the trainer says nothing when it is let pass."""
    double.model_for = lambda name: double.name
    monkeypatch.setattr(proofs.Floor, "bound", property(lambda floor: 0.01))
    inner = moved.scorer.logprobs

    def agreeing(*rows: Any, adapter: bool = True) -> Any:
        tuned = inner(*rows, adapter=False)
        return [tuple(p - (not adapter) for p in row) for row in tuned]

    sampler.sample(PROMPTS[:1], WARM, [0], adapter=False)
    monkeypatch.setattr(moved.scorer, "logprobs", agreeing)
    with pytest.raises(EngineError, match="as the base does, token by token"):
        sampler.sample(PROMPTS, WARM, [0] * 4)


def test_a_server_with_another_base_is_refused_before_a_draw(
    moved: Policy, outspoken: Path, tmp_path: Path
) -> None:
    with VllmDouble(outspoken) as double:
        sampler = sampler_of(moved, tmp_path, double)
        with pytest.raises(EngineError, match=r"another base than the run: .* nats from"):
            sampler.prove()
        assert all(body.get("max_tokens", 4) == 4 for _, body in double.requests)
        sampler.close()


@pytest.mark.parametrize(
    ("rank", "reason"),
    [(0, "HTTP 404.*--enable-lora"), (2, "LoRA rank 4 is greater than max_lora_rank 2")],
)
def test_a_server_that_takes_no_such_adapter_is_refused_at_once(
    moved: Policy, tiny_folder: Path, tmp_path: Path, rank: int, reason: str
) -> None:
    with VllmDouble(tiny_folder, max_rank=rank) as double:
        sampler = sampler_of(moved, tmp_path, double)
        with pytest.raises(EngineError, match=reason):
            sampler.prove()
        assert sum(path == "/v1/load_lora_adapter" for path, _ in double.requests) == 1
        sampler.close()


@pytest.mark.parametrize("status", [500, 503, -1])
def test_a_failure_that_passes_costs_a_request_and_a_new_proof(
    moved: Policy, sampler: VllmSampler, double: VllmDouble, status: int
) -> None:
    sampler.sample(PROMPTS, WARM, [1, 2, 3, 4])
    failures = [status]
    double.requests.clear()
    double.fault = lambda path, body: failures.pop() if failures else None
    rows = sampler.sample(PROMPTS, WARM, [1, 2, 3, 4])
    assert_same(rows, moved.sampler.sample(PROMPTS, WARM, [1, 2, 3, 4]))
    proven = [b for p, b in double.requests if b.get("max_tokens") == PROOF.max_tokens]
    assert len(proven) == 2 * len(PROMPTS)  # of the base and of the adapter


@pytest.mark.parametrize(
    ("status", "reason"),
    [(500, r"HTTP 500: .*EngineCore encountered"), (0, "no answer in time"), (-1, "Remote|Read")],
)
def test_a_failure_that_stays_ends_in_bounds_with_its_cause(
    moved: Policy, double: VllmDouble, tmp_path: Path, status: int, reason: str
) -> None:
    sampler = sampler_of(moved, tmp_path, double, timeout_s=0.3)
    sampler._places[0].base, double.fault = "x", lambda path, body: status
    with pytest.raises(EngineError, match=f"{double.url}: it does not answer, got .*{reason}"):
        sampler.sample(PROMPTS[:1], WARM, [0])
    assert len(double.requests) == (2 if status == 0 else 3)  # one that hangs is asked once more
    sampler.close()


def test_a_server_that_is_gone_is_said_to_be(
    moved: Policy, double: VllmDouble, tmp_path: Path
) -> None:
    sampler = sampler_of(moved, tmp_path, double)
    double.kill()
    with pytest.raises(EngineError, match="does not answer, got ConnectError"):
        sampler.prove()
    sampler.close()


def test_a_server_that_died_and_came_back_gets_its_adapter_again(
    moved: Policy, sampler: VllmSampler, double: VllmDouble
) -> None:
    expected = moved.sampler.sample(PROMPTS, WARM, [1, 2, 3, 4])
    sampler.sample(PROMPTS, WARM, [1, 2, 3, 4])
    double.kill()
    double.revive()
    assert_same(sampler.sample(PROMPTS, WARM, [1, 2, 3, 4]), expected)
    assert len(double.adapters) == 1


def test_a_server_replaced_by_one_with_another_base_is_seen(
    sampler: VllmSampler, double: VllmDouble, outspoken: Path
) -> None:
    sampler.sample(PROMPTS, WARM, [0] * 4)
    double.kill()
    double.rebase(outspoken)
    double.revive()
    with pytest.raises(EngineError, match="another base than the run"):
        sampler.sample(PROMPTS, WARM, [0] * 4, adapter=False)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": "another"}, "was asked and 'another' answered"),
        ({"choices": [{"text": "no tokens"}]}, "without its tokens and log-probabilities"),
        ({"token_ids": [70], "token_logprobs": [-1.0]}, "cut off after 1 of 6 tokens"),
        ({"token_ids": [258, 70], "token_logprobs": [-1.0, -1.0]}, "goes on after a token"),
        ({"token_ids": [70] * 7, "token_logprobs": [-1.0] * 7}, "has 7 tokens of at most 6"),
        ({"token_ids": ["70"], "token_logprobs": [-1.0]}, "has tokens that are none"),
    ],
)
def test_an_answer_to_something_else_is_refused(
    double: VllmDouble, change: dict[str, Any], reason: str
) -> None:
    inner = double._complete

    def changed(body: dict[str, Any]) -> tuple[int, Any]:
        status, content = inner(body)
        for name, value in change.items():
            place = {"token_ids": content["choices"][0]}.get(name, content)
            place = content["choices"][0].get("logprobs") if name == "token_logprobs" else place
            place[name] = value
        return status, content

    double._complete = changed  # type: ignore[method-assign]
    server = Server(double.url)
    with pytest.raises(EngineError, match=reason):
        server.draw(double.name, PROMPTS[0], WARM, 1, [258])
    server.close()


def test_a_key_goes_with_every_request_and_into_no_message(tiny_folder: Path) -> None:
    secret = "s3cret-of-the-server"
    with VllmDouble(tiny_folder, key=secret) as double:
        server = Server(double.url, key=secret)
        assert server.models()[0].name == tiny_folder.name
        double._cards = lambda: secret  # type: ignore[method-assign,assignment,return-value]
        with pytest.raises(EngineError) as raised:
            server.models()
        assert secret not in str(raised.value)
        server.close()
        stranger = Server(double.url)
        with pytest.raises(EngineError, match="HTTP 401"):
            stranger.models()
        stranger.close()


def test_a_server_of_the_runs_own_that_cannot_start_shows_the_end_of_its_log(
    tmp_path: Path,
) -> None:
    with managed_server(sys.executable, ["--model", "x"], tmp_path, cpu=True) as own:
        server = Server(own.url, key=own.key, cause=own.cause)
        with pytest.raises(EngineError) as raised:
            own.wait_until_up(server, 60)
        with pytest.raises(EngineError, match=f"ended with 1. The end of {own.log}"):
            server.models()
        server.close()
    assert "No module named 'vllm'" in str(raised.value)
    assert own.key not in str(raised.value)


def test_a_server_that_loses_its_adapter_in_a_proof_gets_it_again_once(
    moved: Policy, sampler: VllmSampler, double: VllmDouble
) -> None:
    inner, losses = double._load, [True]

    def losing(name: str, folder: Path) -> tuple[int, Any]:
        answer = inner(name, folder)
        if losses:
            losses.pop()
            double.adapters.clear()
        return answer

    double._load = losing  # type: ignore[method-assign]
    expected = moved.sampler.sample(PROMPTS, WARM, [1, 2, 3, 4])
    assert_same(sampler.sample(PROMPTS, WARM, [1, 2, 3, 4]), expected)
    losses += [True, True]
    double.adapters.clear()
    with pytest.raises(EngineError, match=r"lost its adapter, got HTTP 404"):
        sampler.sample(PROMPTS, WARM, [1, 2, 3, 4])
