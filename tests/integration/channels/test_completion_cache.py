"""Scoring of texts: the cache, the way through DSPy and the one around it, and the worker."""

import json
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest
import torch
from dspy.lm15 import Message, Request

from benchmarks import fast_eval
from fastslow.channels.fast.channel import FastChannel
from fastslow.channels.fast.completion_cache import CompletionCache, score_programs
from fastslow.channels.fast.demo_order import by_difficulty
from fastslow.channels.fast.dspy_bridge import (
    PolicyEngine,
    PromptModule,
    RendererAdapter,
    language_model,
)
from fastslow.channels.fast.optimizers.demos import DemosSearch
from fastslow.channels.fast.scorer import TextScorer, isolated, scores_by_id
from fastslow.channels.fast.settings import DemosConfig, DemosKeys
from fastslow.core.errors import ChannelError
from fastslow.core.prompts import Demonstration, PromptProgram
from fastslow.core.types import Anchor, Completion, Grade, Sampling, TokenIds
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task

SETTINGS = DemosConfig(population=2, metric_calls=24, threads=4)
TEXTS = [
    PromptProgram("Write letters, good.", (Demonstration("q", "ab"),)),
    PromptProgram("Write."),
    PromptProgram(""),
]


class Scripted:
    """Says how it was asked; may be told to fail, or to wait."""

    num_rollouts = num_tokens = 0

    def __init__(self, before: Any = lambda: None) -> None:
        self.batches: list[list[TokenIds]] = []
        self.before = before

    def sample(
        self,
        prompts: Sequence[TokenIds],
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        adapter: bool = True,
    ) -> list[Completion]:
        self.batches.append(list(prompts))
        self.before()
        return [Completion((1,), (0.0,), f"seed {s}", "stop") for s in seeds]


def ask(text: str) -> Request:
    return Request(model="local/policy", messages=(Message.user(text),))


def engine_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if "policy-engine" in t.name]


def test_scores_around_dspy_are_those_through_it_and_both_draw_each_completion_once(
    moved: Policy, task: Task, anchors: list[Anchor]
) -> None:
    task = replace(task, grade=lambda e, text: Grade(sum(map(ord, text)) % 7 / 6, "by its letters"))
    examples = anchors[0].examples
    direct = score_programs(moved, task, TEXTS, examples)
    assert moved.sampler.num_rollouts == 12
    assert len({tuple(scores.values()) for scores in direct}) > 1
    scorer = TextScorer(moved, task, anchors[0], SETTINGS)
    with scorer.engine:
        assert [through_dspy(scorer, text) for text in TEXTS] == direct
        assert (moved.sampler.num_rollouts, scorer.cache.hits) == (24, 0)
        assert scorer.score(*TEXTS) == direct
        assert [through_dspy(scorer, text) for text in TEXTS] == direct
        assert (moved.sampler.num_rollouts, scorer.cache.hits) == (24, 24)
    assert not engine_threads()


def through_dspy(scorer: TextScorer, text: PromptProgram) -> dict[str, float]:
    """Scores of a text as DSPy's optimizers find them."""
    evaluate = dspy.Evaluate(
        devset=scorer.anchor_set,
        metric=scorer.metric,
        num_threads=scorer.threads,
        max_errors=1,
        display_progress=False,
    )
    with scorer.asking():
        results = evaluate(PromptModule(text)).results
    return scores_by_id(*map(list, zip(*((e, score) for e, _, score in results), strict=True)))


def test_other_weights_other_decoding_and_other_seeds_are_other_requests(moved: Policy) -> None:
    cache = CompletionCache(moved)
    prompts = [moved.renderer.prompt_ids(TEXTS[0], "q")]
    greedy, warm = Sampling(4), Sampling(4, 1.0)
    for sampling, seeds, drawn in (
        (greedy, [0, 0], 1),
        (greedy, [1, 2], 1),  # greedy completions do not depend on a seed
        (replace(greedy, max_tokens=3), [0, 0], 2),
        (warm, [1, 2], 4),
        (warm, [2, 1], 4),
    ):
        cache.sample(prompts * 2, sampling, seeds)
        assert moved.sampler.num_rollouts == drawn
    with torch.no_grad():
        next(p for p in moved.model.parameters() if p.requires_grad).add_(0.1)
    before = moved.sampler.sample(prompts, greedy, [0])
    assert cache.sample(prompts, greedy, [0]) == before
    assert moved.sampler.num_rollouts == 6


def test_a_phase_never_draws_the_same_completion_twice(
    moved: Policy, task: Task, anchors: list[Anchor], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TokenIds] = []
    inner = moved.sampler.sample

    def spy(prompts: Any, sampling: Sampling, seeds: Any) -> list[Completion]:
        seen.extend(prompts)
        return inner(prompts, sampling, seeds)

    monkeypatch.setattr(moved.sampler, "sample", spy)
    poor = replace(anchors[0], pool=anchors[0].pool[:1])  # proposals must repeat each other
    channel = FastChannel(SETTINGS, DemosSearch(DemosKeys(demonstrations=2)))
    adaptation = channel.adapt(moved, task, poor, 1, lambda *unused: None)
    assert len(seen) == len(set(seen)) == adaptation.rollouts
    assert adaptation.metrics["cache_hits"] > 0


def test_requests_in_flight_are_one_batch_and_more_than_that_are_several() -> None:
    scripted = Scripted()
    with _engine(scripted, threads=3) as engine, ThreadPoolExecutor(3) as pool:
        started = time.monotonic()
        answers = list(pool.map(engine.complete, map(ask, "abcdef")))
        assert time.monotonic() - started < 30
    assert len(answers) == 6
    assert sum(map(len, scripted.batches)) == 6
    assert len(scripted.batches) < 6


def test_a_rollout_id_draws_another_completion_and_the_same_one_again() -> None:
    with _engine(Scripted(), threads=1) as engine:
        lm = language_model(engine)
        warm = [lm.copy(rollout_id=i, temperature=1.0)(text)[0] for i, text in _WARM]
    assert warm[0] == warm[2]
    assert len(set(warm)) == 3


_WARM = ((1, "a"), (2, "a"), (1, "a"), (1, "b"))


def test_whoever_waits_when_the_engine_is_cancelled_gets_an_error() -> None:
    drawing, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        drawing.set()
        assert go_on.wait(5)

    with _engine(Scripted(wait), threads=1) as engine, ThreadPoolExecutor(2) as pool:
        first = pool.submit(engine.complete, ask("a"))
        assert drawing.wait(5)
        second = pool.submit(engine.complete, ask("b"))
        while not engine._waiting:
            time.sleep(0.001)
        engine.cancel()
        with pytest.raises(ChannelError, match="phase ended"):
            second.result(5)
        go_on.set()
        assert first.result(5).message.text == "seed 0"
        with pytest.raises(ChannelError, match="after the policy's last answer"):
            engine.complete(ask("c"))
    assert not engine_threads()


def test_a_worker_that_dies_leaves_nobody_waiting() -> None:
    def die() -> None:
        raise SystemExit

    engine = _engine(Scripted(die), threads=2).__enter__()
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(engine.complete, ask(text)) for text in "ab"]
        assert all(isinstance(a.exception(5), SystemExit | ChannelError) for a in answers)
    engine._worker.join(5)
    with pytest.raises(ChannelError, match="after the policy's last answer"):
        engine.complete(ask("c"))
    with pytest.raises(ChannelError, match="could not answer"):
        engine.__exit__(None, None, None)


def test_an_interrupt_ends_the_phase_and_every_thread(
    moved: Policy, task: Task, anchors: list[Anchor]
) -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)

    scorer = TextScorer(moved, task, anchors[0], SETTINGS)
    scorer.engine.sampler = Scripted(interrupt)
    with pytest.raises(KeyboardInterrupt), scorer.engine:
        through_dspy(scorer, TEXTS[0])
    deadline = time.monotonic() + 5
    while any("ThreadPool" in t.name for t in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not engine_threads()


def test_demonstrations_are_scored_and_kept_in_the_order_asked_for(moved: Policy) -> None:
    shown = (Demonstration("hard", "a"), Demonstration("easy", "b"))
    order = by_difficulty({"hard": 1.0, "easy": 0.0}, hardest_first=False)
    scripted = Scripted()
    with PolicyEngine(scripted, moved.renderer, Sampling(3)) as engine, isolated():
        module = PromptModule(PromptProgram("Write."), order)
        module.respond.demos = [dspy.Example(question=d.question, answer=d.answer) for d in shown]
        with dspy.context(lm=language_model(engine), adapter=RendererAdapter()):
            module.deepcopy()(question="q")
    assert module.program().demonstrations == shown[::-1]
    assert scripted.batches == [[moved.renderer.prompt_ids(module.program(), "q")]]


@pytest.mark.parametrize(
    "order", ["similar", "easy_first", "hard_first", "signal_easy_first", "signal_hard_first"]
)
def test_every_order_keeps_to_the_budget_and_repeats_itself(
    moved: Policy, task: Task, anchors: list[Anchor], order: Any
) -> None:
    settings = SETTINGS.model_copy(update={"metric_calls": 32})
    signal = {"demonstration_signal": {"kind": "l0"}} if order.startswith("signal") else {}
    keys = DemosKeys.model_validate({"demonstrations": 2, "demonstration_order": order, **signal})
    channel = FastChannel(settings, DemosSearch(keys))
    found = []
    for _ in range(2):
        moved.populations.clear()
        adaptation = channel.adapt(moved, task, anchors[0], 1, lambda *unused: None)
        assert adaptation.rollouts <= settings.metric_calls
        found.append(moved.populations[task.name])
    assert found[0] == found[1]


def test_the_benchmark_compares_equal_scores(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    sizes = ["--programs", "2", "--examples", "2", "--repeats", "1"]
    fast_eval.main([*sizes, "--model", str(tiny_folder), "--json", str(out)])
    found = json.loads(out.read_text())
    assert found["identical"] is True
    for side in found["differing_from_plain"].values():
        assert side == {"scores": 0, "completions": 0}
    assert found["vs_dspy"] > 0 < found["vs_batched"]
    assert max(found["text_tokens"]) <= 280
    assert '"identical": true' in capsys.readouterr().out


def _engine(scripted: Scripted, threads: int) -> PolicyEngine:
    class Letters:
        def message_ids(self, messages: Any) -> TokenIds:
            return tuple(map(ord, messages[-1]["content"]))

    return PolicyEngine(scripted, Letters(), Sampling(3), threads=threads)  # type: ignore[arg-type]
