"""The reflection LM: the policy's own base, a real server, and servers that fail."""

import contextlib
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dspy
import pytest

from fastslow.channels.fast.dspy_bridge import (
    Metric,
    PolicyEngine,
    PromptModule,
    language_model,
    to_dspy,
)
from fastslow.channels.fast.feedback import feedback
from fastslow.channels.fast.reflection.endpoint import NO_KEY, find_key, is_local
from fastslow.channels.fast.reflection.lm import Reflection
from fastslow.channels.fast.scorer import isolated
from fastslow.channels.fast.settings import ReflectionSettings
from fastslow.core.errors import ChannelError, ConfigError
from fastslow.core.prompts import PromptProgram
from fastslow.core.types import Anchor, Sampling
from fastslow.policy.engine.torch_engine import TorchEngine
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task
from tests.support.servers import FailingServer, RealServer, real_server

OWN = ReflectionSettings(max_tokens=12)


def settings(server: FailingServer | RealServer, **changes: Any) -> ReflectionSettings:
    model = server.model if isinstance(server, RealServer) else "openai/m"
    impatient = {"max_tokens": 8, "attempts": 3, "wait_s": 0.01, "timeout_s": 20.0}
    return ReflectionSettings(model=model, api_base=server.api_base, **impatient | changes)


def asked(reflection: Reflection, text: str = "Write.") -> str:
    [answer] = reflection.lm(text)
    assert isinstance(answer, str)
    return answer


def test_self_answers_with_the_base_and_draws_no_rollout(moved: Policy) -> None:
    reflection = Reflection(OWN.model_copy(update={"temperature": 0.0}))
    with reflection.phase(moved, seed=1):
        answer = asked(reflection)
    ids = moved.renderer.message_ids([{"role": "user", "content": "Write."}])
    with moved.scorer.base_weights():
        fresh = TorchEngine(moved.model, moved.renderer)
        [base] = fresh.sample([ids], Sampling(12), [0])
    [tuned] = TorchEngine(moved.model, moved.renderer).sample([ids], Sampling(12), [0])
    assert answer == base.text != tuned.text
    assert moved.sampler.num_rollouts == 0
    assert (reflection.calls, reflection.failures, reflection.away) == (1, 0, None)
    assert (reflection.prompt_tokens, reflection.completion_tokens) == (len(ids), 12)
    assert "reflection_cost_usd" not in reflection.figures()


def test_whoever_waits_is_told_of_every_answer(moved: Policy) -> None:
    reflection, told = Reflection(OWN), list[int]()
    for _ in range(2):
        with reflection.phase(moved, seed=1, note_answer=told.append):
            asked(reflection)
            asked(reflection, "Again.")
    assert told == [1, 2, 1, 2]


def test_answers_of_self_are_drawn_from_the_phases_seed(moved: Policy) -> None:
    def answers(seed: int) -> list[str]:
        reflection = Reflection(OWN)
        with reflection.phase(moved, seed):
            return [asked(reflection), asked(reflection), asked(reflection, "Again.")]

    assert answers(1) == answers(1)
    assert answers(1) != answers(2)
    assert len(set(answers(1))) == 3


def test_the_bases_beginnings_are_not_those_of_the_tuned_policy(moved: Policy) -> None:
    prompts = [moved.renderer.prompt_ids(PromptProgram("Long text. " * 9), q) for q in "ab"]
    seeds = [0, 0]
    tuned = moved.sampler.sample(prompts, Sampling(5), seeds)
    base = moved.sampler.sample(prompts, Sampling(5), seeds, adapter=False)
    with moved.scorer.base_weights():
        fresh = TorchEngine(moved.model, moved.renderer).sample(prompts, Sampling(5), seeds)
    assert [c.token_ids for c in base] == [c.token_ids for c in fresh]
    assert base != tuned
    assert moved.sampler.sample(prompts, Sampling(5), seeds) == tuned


def test_while_the_base_answers_others_wait_for_the_adapter(moved: Policy) -> None:
    ids = moved.renderer.prompt_ids(PromptProgram("Write."), "q")
    expected = TorchEngine(moved.model, moved.renderer).sample([ids], Sampling(5), [0])
    found: list[Any] = []

    def draw() -> None:
        found.extend(moved.sampler.sample([ids], Sampling(5), [0]))

    other = threading.Thread(target=draw)
    with moved.scorer.base_weights():
        other.start()
        other.join(timeout=0.2)
        assert other.is_alive()
    other.join(timeout=10)
    assert found == expected


def test_a_request_longer_than_the_model_reads_is_refused_but_others_are_answered(
    moved: Policy,
) -> None:
    reflection = Reflection(OWN)
    with reflection.phase(moved, seed=1):
        with pytest.raises(dspy.LMError, match=r"do not fit into the model's 2048"):
            asked(reflection, "long " * 600)
        assert reflection.away is None
        assert asked(reflection)
    assert (reflection.calls, reflection.failures) == (1, 1)


def test_a_base_that_fails_for_a_reason_of_its_own_stops_the_run(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*unused: Any, **unused_too: Any) -> Any:
        raise KeyError("no such layer")

    monkeypatch.setattr(policy.sampler, "sample", broken)
    reflection = Reflection(OWN)

    def swallow() -> None:
        with reflection.phase(policy, seed=1), contextlib.suppress(dspy.LMError):
            asked(reflection)

    with pytest.raises(ChannelError, match="no such layer"):
        swallow()


@pytest.mark.network
def test_a_playbook_stands_before_every_request(moved: Policy) -> None:
    with FailingServer([200]) as server:
        reflection = Reflection(settings(server))
        with reflection.phase(moved, 1, preface="Known so far."):
            asked(reflection)
    [message] = [m for m in server.requests[0]["messages"] if m["role"] in ("system", "developer")]
    assert "Known so far." in str(message["content"])


@pytest.mark.network
def test_a_busy_server_is_asked_again_and_everything_is_counted(policy: Policy) -> None:
    with FailingServer([429, 503, 200]) as server:
        reflection = Reflection(settings(server))
        with reflection.phase(policy, seed=1):
            assert asked(reflection) == "better"
            assert asked(reflection) == "better"
    assert len(server.requests) == 4
    assert reflection.figures() == {
        "reflection_calls": 2.0,
        "reflection_failures": 2.0,
        "reflection_prompt_tokens": 14.0,
        "reflection_completion_tokens": 6.0,
        "reflection_away": 0.0,
    }


@pytest.mark.network
@pytest.mark.parametrize("status", [429, 500, 0])
def test_a_server_that_stays_away_is_left_alone_until_the_next_phase(
    policy: Policy, status: int
) -> None:
    with FailingServer([status]) as server:
        reflection = Reflection(settings(server, timeout_s=0.2))
        with reflection.phase(policy, seed=1):
            for _ in range(3):
                with pytest.raises(dspy.LMError, match="stays away"):
                    asked(reflection)
            assert len(server.requests) == 3
            assert reflection.away is not None
            assert "openai/m" in reflection.away
            assert "3 failed attempts" in reflection.away
        server.statuses = [200]
        with reflection.phase(policy, seed=2):
            assert not reflection.figures()["reflection_away"]
            assert asked(reflection) == "better"


@pytest.mark.network
def test_a_refused_key_ends_it_at_once_and_is_repeated_nowhere(
    policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "plain-and-secret-1234"
    monkeypatch.setenv("MY_KEY", key)
    with FailingServer([401], f"Incorrect API key provided: {key}") as server:
        reflection = Reflection(settings(server, api_key_env="MY_KEY"))
        with reflection.phase(policy, seed=1):
            try:
                asked(reflection)
            except dspy.LMError as err:
                said = "".join(traceback.format_exception(err))
    assert len(server.requests) == 1
    assert server.keys == [f"Bearer {key}"]
    assert reflection.away is not None
    assert "Incorrect API key provided: [removed]" in reflection.away
    assert key not in said + reflection.away + repr(reflection.lm.history) + str(reflection.lm)
    assert key not in repr(reflection.lm.dump_state)


@pytest.mark.network
def test_requests_a_server_keeps_refusing_make_it_away(policy: Policy) -> None:
    with FailingServer([400]) as server:
        reflection = Reflection(settings(server))
        with reflection.phase(policy, seed=1):
            for _ in range(5):
                with pytest.raises(dspy.LMError):
                    asked(reflection)
    assert len(server.requests) == 3
    assert reflection.away is not None


def test_a_missing_key_is_named_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="environment variable OPENAI_API_KEY"):
        Reflection(ReflectionSettings(model="openai/gpt-5-mini"))
    with pytest.raises(ConfigError, match="environment variable MY_KEY"):
        find_key("openai/m", "http://127.0.0.1:1/v1", "MY_KEY")
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="GEMINI_API_KEY or GOOGLE_API_KEY"):
        find_key("gemini/g", None, None)


def test_a_server_on_this_machine_gets_no_key_it_did_not_ask_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "real")
    assert find_key("openai/m", "http://localhost:8000/v1", None) == NO_KEY
    assert find_key("openai/m", "https://example.org/v1", None) == "real"
    assert is_local("http://[::1]:80/v1")
    assert not is_local("http://127.0.0.1.example.org/v1")


def test_a_policy_that_cannot_answer_stops_the_run_even_while_reflection_is_away(
    policy: Policy,
) -> None:
    reflection = Reflection(OWN)

    def fail(away: str | None, error: Exception) -> None:
        with reflection.phase(policy, seed=1):
            reflection.away = away
            raise error

    with pytest.raises(ChannelError, match="no room"):
        fail("gone", ChannelError("no room"))
    with pytest.raises(ZeroDivisionError):
        fail(None, ZeroDivisionError())
    fail("gone", ZeroDivisionError())


def evolve(
    policy: Policy, task: Task, anchor: Anchor, reflection: Reflection, between: Any
) -> tuple[list[str], int]:
    """A GEPA of few lines: each proposal asks the reflection LM; `between` runs before each."""
    examples = {e.id: e for e in anchor.examples}
    grades = Metric(task, anchor.examples)

    def metric(gold: Any, prediction: Any, *unused: Any) -> Any:
        grade = task.grade(examples[gold.id], prediction.answer)
        said = feedback(examples[gold.id], prediction.answer, grade)
        return dspy.Prediction(score=grades(gold, prediction), feedback=said)

    asks = 0

    def propose(
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Any]],
        components_to_update: list[str],
    ) -> dict[str, str]:
        nonlocal asks
        asks += 1
        between(asks)
        [name] = components_to_update
        told = str(reflective_dataset[name][0]["Feedback"])
        return {name: f"Write letters {asks}. {reflection.lm(told)[0][:10]!r}"}

    data = [to_dspy(example) for example in anchor.examples]
    with (
        PolicyEngine(policy.sampler, policy.renderer, Sampling(task.max_tokens)) as engine,
        isolated(),
        dspy.context(lm=language_model(engine)),
    ):
        found = dspy.GEPA(
            metric=metric,
            max_metric_calls=200,
            reflection_minibatch_size=2,
            reflection_lm=reflection.lm,
            instruction_proposer=propose,
            skip_perfect_score=False,
            use_merge=False,
            num_threads=2,
            track_stats=True,
            warn_on_score_mismatch=False,
            gepa_kwargs={"stop_callbacks": lambda state: reflection.away is not None or asks >= 8},
        ).compile(PromptModule(PromptProgram("Write letters.")), trainset=data, valset=data)
    return [c.program().instruction for c in found.detailed_results.candidates], asks


@pytest.mark.network
def test_a_real_server_that_dies_in_mid_phase_ends_the_phase_and_keeps_what_there_was(
    moved: Policy, task: Task, anchors: list[Anchor], tiny_folder: Path, tmp_path: Path
) -> None:
    with real_server(tiny_folder, tmp_path / "serve.log") as server:
        reflection = Reflection(settings(server, temperature=0.0))
        texts: list[str] = []
        with reflection.phase(moved, seed=1):
            own = Reflection(ReflectionSettings(max_tokens=8, temperature=0.0))
            with own.phase(moved, seed=1):
                assert asked(reflection) == asked(own)

            def kill_before_the_third(asks: int) -> None:
                if asks == 3:
                    server.kill()

            texts, asks = evolve(moved, task, anchors[0], reflection, kill_before_the_third)
    assert asks == 4  # GEPA tries the third again by itself, which does not reach the network
    assert (reflection.calls, reflection.failures) == (3, 3)
    assert reflection.completion_tokens is not None
    assert reflection.completion_tokens > 0
    assert "Write letters." in texts
    assert reflection.away is not None
    assert "3 failed attempts" in reflection.away
    assert reflection.figures()["reflection_away"] == 1.0
