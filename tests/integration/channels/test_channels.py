"""Both channels against the real TRL and DSPy, over a tiny model."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import dspy
import pytest
import torch

from fastslow.channels.fast.channel import FastChannel
from fastslow.channels.fast.dspy_bridge import Metric, PolicyEngine, PromptModule, language_model
from fastslow.channels.fast.dspy_programs import load_program, save_programs
from fastslow.channels.fast.optimizers.demos import AnswerQuota, DemosSearch
from fastslow.channels.fast.scorer import TextScorer
from fastslow.channels.fast.settings import DemosConfig, DemosKeys
from fastslow.channels.slow.channel import SlowChannel
from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.channels.slow.remedies.kl_budget import kl_budget
from fastslow.channels.slow.remedies.stack import Remedies
from fastslow.channels.slow.settings import GrpoConfig
from fastslow.channels.slow.trl_rows import largest_divisor, unpad
from fastslow.core.errors import ChannelError
from fastslow.core.prompts import Candidate, Demonstration, PromptProgram
from fastslow.core.types import Anchor, Completion, Example, Grade, Sampling, TokenIds
from fastslow.policy.adapter.parts import start_fresh
from fastslow.policy.engine.interface import Sampler
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task
from fastslow.task.graders import exact_match
from fastslow.task.splits import spread_answers
from tests.support.updates import (
    changed,
    ending,
    scored_group,
    set_texts,
    trainable,
)

FAST = DemosConfig(population=2, metric_calls=24, threads=4)
DEMOS = DemosSearch(DemosKeys(demonstrations=2))
GRPO = GrpoConfig(
    loss="cispo",
    group=4,
    lr=0.01,
    warmup_steps=1,
    weight_decay=0.0,
    max_grad_norm=1.0,
    ratio_cap=4.0,
    kl_coefficient=0.001,
    temperature=1.0,
    rows_per_forward=64,
)
GOOD, BAD = PromptProgram("Write letters, good."), PromptProgram("Write letters, bad.")


def silent(done: int, total: int, figures: object) -> None:
    """A log that keeps nothing."""


def uneven(task: Task) -> Task:
    """The same task with scores that differ from completion to completion."""
    return replace(task, grade=lambda _, text: Grade(crc32(text.encode()) % 5 / 4, "by chance"))


def two_texts(policy: Policy, task: Task) -> None:
    set_texts(policy, task, GOOD, BAD)


class Recorded:
    """A sampler that answers like another and keeps what it was asked."""

    def __init__(self, inner: Sampler) -> None:
        self.inner = inner
        self.prompts: list[TokenIds] = []
        self.num_rollouts = self.num_tokens = 0

    def sample(
        self, prompts: Any, sampling: Sampling, seeds: Any, *, adapter: bool = True
    ) -> list[Completion]:
        self.prompts += prompts
        self.num_rollouts += len(prompts)
        return self.inner.sample(prompts, sampling, seeds, adapter=adapter)


def test_one_token_sequence_for_both_channels_and_the_saved_program(
    policy: Policy,
    task: Task,
    anchors: list[Anchor],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    program = PromptProgram("Write letters.", (Demonstration("q", "ab"), Demonstration("r", "c")))
    examples = anchors[0].batches[0].examples
    expected = {policy.renderer.prompt_ids(program, e.question) for e in examples}
    recorded = policy.sampler = Recorded(policy.sampler)

    anchor = replace(anchors[0], batches=(anchors[0].batches[0],))
    TextScorer(policy, task, anchor, FAST).score(program)
    assert set(recorded.prompts) == expected

    recorded.prompts.clear()
    set_texts(policy, task, program)
    trainer = FastSlowTrainer(policy, {task.name: task}, 2, GRPO)
    seen: list[TokenIds] = []
    scorer = trainer._get_per_token_logps_and_entropies

    def spy(model: Any, ids: torch.Tensor, mask: torch.Tensor, keep: int, **rest: Any) -> Any:
        seen.extend(unpad(ids, mask, keep)[0])
        return scorer(model, ids, mask, keep, **rest)

    monkeypatch.setattr(trainer, "_get_per_token_logps_and_entropies", spy)
    batch = anchors[0].batches[0]
    finish = ending(policy, task, batch, torch.optim.AdamW(trainable(policy)))
    trainer.update(batch, 1, finish)
    assert set(recorded.prompts) == expected
    assert set(seen) == expected
    assert trainer.graded_reward(["", ""] * 4) == [r.grade.score for r in trainer.rollouts]

    recorded.prompts.clear()
    save_programs(policy, tmp_path)
    saved = load_program(tmp_path / task.name)
    assert saved.program() == program
    with (
        PolicyEngine(policy.sampler, policy.renderer, Sampling(3)) as engine,
        dspy.context(lm=language_model(engine)),
    ):
        for example in examples:
            saved(question=example.question)
    assert set(recorded.prompts) == expected


def test_a_group_is_g_rollouts_of_one_problem_shared_evenly_by_the_texts(
    policy: Policy, task: Task, anchors: list[Anchor]
) -> None:
    two_texts(policy, task)
    channel = SlowChannel(GRPO, FastSlowTrainer)
    adaptation = channel.adapt(policy, task, anchors[0], 1, silent)
    assert adaptation.rollouts == 2 * 2 * 4
    assert isinstance(channel._trainer, FastSlowTrainer)
    rollouts = channel._trainer.rollouts
    for problem in range(2):
        group = rollouts[problem * 4 : problem * 4 + 4]
        assert len({r.example.id for r in group}) == 1
        assert Counter(r.program for r in group) == {GOOD: 2, BAD: 2}


def test_the_advantage_is_taken_once_per_problem_across_texts(policy: Policy, task: Task) -> None:
    """The second rollout is above the group's mean and below the mean of its own text."""
    two_texts(policy, task)
    left = iter([1.0, 0.6, 0.4, 0.0])
    graded = replace(task, grade=lambda *unused: Grade(next(left), "in order"))
    trainer = FastSlowTrainer(policy, {task.name: graded}, 1, GRPO)
    batch = scored_group(trainer, graded, [Example("e", "q", "a")])
    deviation = (0.52 / 3) ** 0.5  # Bessel-corrected
    expected = torch.tensor([0.5, 0.1, -0.1, -0.5]) / (deviation + 1e-4)
    torch.testing.assert_close(batch["advantages"], expected)


def test_cispo_caps_the_ratio_from_above_only_and_takes_no_gradient_through_it(
    policy: Policy, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = FastSlowTrainer(policy, {task.name: task}, 1, changed(GRPO, kl_coefficient=0.0))
    logps = torch.zeros(4, 1, requires_grad=True)
    monkeypatch.setattr(
        trainer,
        "_get_per_token_logps_and_entropies",
        lambda *unused, **too: (logps, torch.zeros(4, 1), None),
    )
    ratios = torch.tensor([[8.0], [4.0], [1.0], [0.01]])
    inputs = {
        "prompt_ids": torch.ones(4, 1, dtype=torch.long),
        "prompt_mask": torch.ones(4, 1),
        "completion_ids": torch.ones(4, 1, dtype=torch.long),
        "completion_mask": torch.ones(4, 1),
        "advantages": torch.ones(4),
        "old_per_token_logps": -ratios.log(),
        "num_items_in_batch": torch.tensor(1.0),
    }
    trainer._compute_loss(trainer.model.train(), inputs).backward()
    assert logps.grad is not None
    torch.testing.assert_close(logps.grad[:, 0], -torch.tensor([4.0, 4.0, 1.0, 0.01]))


def test_one_pass_of_eight_rows_equals_eight_of_one(
    policy: Policy, task: Task, anchors: list[Anchor]
) -> None:
    two_texts(policy, task)
    batch = anchors[0].batches[0]
    start = {n: p.clone() for n, p in policy.model.named_parameters() if p.requires_grad}
    results = []
    for rows in (8, 1):
        with torch.no_grad():
            for name, parameter in policy.model.named_parameters():
                if name in start:
                    parameter.copy_(start[name])
        settings = changed(GRPO, rows_per_forward=rows)
        trainer = FastSlowTrainer(policy, {task.name: task}, 2, settings)
        assert trainer.pass_size.rows == rows
        parameters = trainable(policy)
        before = torch.cat([p.detach().flatten() for p in parameters])
        plain = torch.optim.SGD(parameters, lr=1.0)  # its step is the gradient
        trainer.update(batch, 1, ending(policy, task, batch, plain))
        results.append(before - torch.cat([p.detach().flatten() for p in parameters]))
    assert results[0].norm() > 0
    assert (results[0] - results[1]).norm() / results[0].norm() < 1e-4


def test_the_reference_is_the_base_and_not_a_copy_of_the_adapter(
    moved: Policy, task: Task, anchors: list[Anchor]
) -> None:
    trainer = FastSlowTrainer(moved, {task.name: task}, 2, GRPO)
    assert list(moved.model.peft_config) == ["default"]
    assert trainer.ref_model is None
    batch = scored_group(trainer, task, anchors[0].batches[0].examples)
    prompts = [moved.renderer.prompt_ids(r.program, r.example.question) for r in trainer.rollouts]
    drawn = [r.completion.token_ids for r in trainer.rollouts]
    base = moved.scorer.logprobs(prompts, drawn, adapter=False)
    for row, expected in zip(batch["ref_per_token_logps"].tolist(), base, strict=True):
        assert row[: len(expected)] == pytest.approx(expected, abs=1e-4)


def test_slow_phase_changes_the_adapter_and_no_text(
    policy: Policy, task: Task, anchors: list[Anchor]
) -> None:
    two_texts(policy, task)
    weights, texts = policy.weights_fingerprint(), policy.texts_fingerprint()
    adaptation = SlowChannel(GRPO, FastSlowTrainer).adapt(policy, task, anchors[0], 1, silent)
    assert policy.weights_fingerprint() != weights
    assert policy.texts_fingerprint() == texts
    assert adaptation.metrics["grad_norm"] > 0


def test_a_frozen_adapter_stops_the_run(policy: Policy, task: Task, anchors: list[Anchor]) -> None:
    policy.model.requires_grad_(False)
    with pytest.raises(ChannelError, match="nothing to train"):
        SlowChannel(GRPO, FastSlowTrainer).adapt(policy, task, anchors[0], 1, silent)


def test_a_rate_too_small_to_change_any_weight_stops_the_run(
    moved: Policy, task: Task, anchors: list[Anchor]
) -> None:
    with pytest.raises(ChannelError, match="bit-identical after its updates"):
        SlowChannel(changed(GRPO, lr=1e-30), FastSlowTrainer).adapt(
            moved, task, anchors[0], 1, silent
        )


def test_weights_that_are_not_finite_stop_the_run_and_name_the_batch(
    moved: Policy, task: Task, anchors: list[Anchor]
) -> None:
    channel = SlowChannel(GRPO, FastSlowTrainer)
    channel.adapt(moved, task, anchors[0], 1, silent)
    assert channel._optimizer is not None
    for state in channel._optimizer.state.values():
        state["exp_avg"].fill_(float("nan"))
    with pytest.raises(ChannelError, match=r"not finite.*train-"):
        channel.adapt(moved, task, anchors[1], 1, silent)


def test_slow_channel_loaded_from_its_files_goes_on_as_if_never_stopped(
    policy: Policy, task: Task, anchors: list[Anchor], tmp_path: Path
) -> None:
    two_texts(policy, task)
    channel = SlowChannel(GRPO, FastSlowTrainer)
    channel.adapt(policy, task, anchors[0], 1, silent)
    policy.save(tmp_path / "policy")
    channel.save(tmp_path)
    channel.adapt(policy, task, anchors[1], 2, silent)
    uninterrupted = policy.weights_fingerprint()

    policy.load(tmp_path / "policy")
    again = SlowChannel(GRPO, FastSlowTrainer)
    again.load(tmp_path)
    again.adapt(policy, task, anchors[1], 2, silent)
    assert policy.weights_fingerprint() == uninterrupted


def test_fast_phase_keeps_weights_generators_and_budget(
    moved: Policy, task: Task, anchors: list[Anchor]
) -> None:
    weights, state = moved.weights_fingerprint(), random.getstate()
    adaptation = FastChannel(FAST, DEMOS).adapt(moved, uneven(task), anchors[0], 2, silent)
    assert moved.weights_fingerprint() == weights
    assert random.getstate() == state
    assert adaptation.rollouts <= FAST.metric_calls
    assert adaptation.rollouts == moved.sampler.num_rollouts
    population = moved.populations[task.name]
    assert len(population) == 2
    assert {len(c.scores) for c in population} == {4}
    pool = {e.question for e in anchors[0].pool}
    for candidate in population:
        assert {d.question for d in candidate.program.demonstrations} <= pool


def test_fast_phase_is_the_same_with_other_thread_counts(
    moved: Policy, task: Task, anchors: list[Anchor]
) -> None:
    found = []
    for threads in (1, 4):
        moved.populations.clear()
        channel = FastChannel(FAST.model_copy(update={"threads": threads}), DEMOS)
        channel.adapt(moved, uneven(task), anchors[0], 1, silent)
        found.append(moved.populations[task.name])
    assert found[0] == found[1]


def test_old_texts_are_scored_again_under_the_present_weights(
    moved: Policy, task: Task, anchors: list[Anchor]
) -> None:
    lie = Candidate(GOOD, dict.fromkeys((e.id for e in anchors[0].examples), 1.0))
    moved.populations[task.name] = (lie,)
    FastChannel(FAST, DEMOS).adapt(moved, task, anchors[0], 1, silent)
    assert all(c.mean < 1.0 for c in moved.populations[task.name])


def test_an_engine_that_fails_stops_the_phase_and_is_not_a_score_of_zero(
    moved: Policy, task: Task, anchors: list[Anchor]
) -> None:
    class Broken(Recorded):
        def sample(
            self, prompts: Any, sampling: Sampling, seeds: Any, *, adapter: bool = True
        ) -> list[Completion]:
            raise MemoryError("no room")

    moved.sampler = Broken(moved.sampler)
    with pytest.raises(ChannelError, match="no room"):
        FastChannel(FAST, DEMOS).adapt(moved, task, anchors[0], 1, silent)


def test_empty_instruction_and_empty_completion_survive_dspy(policy: Policy) -> None:
    class Mute(Recorded):
        def sample(
            self, prompts: Any, sampling: Sampling, seeds: Any, *, adapter: bool = True
        ) -> list[Completion]:
            self.prompts += prompts
            return [Completion((1,), (0.0,), "", "stop") for _ in prompts]

    mute = Mute(policy.sampler)
    program = PromptProgram("")
    with (
        PolicyEngine(mute, policy.renderer, Sampling(3)) as engine,
        dspy.context(lm=language_model(engine)),
    ):
        module = PromptModule(program)
        assert module(question="q").answer == ""
        assert module.program() == program
    assert mute.prompts == [policy.renderer.prompt_ids(program, "q")]


def test_a_request_that_comes_again_draws_no_rollout(
    moved: Policy, task: Task, anchors: list[Anchor]
) -> None:
    program = PromptProgram("Write letters.", (Demonstration("q", "ab"),))
    scorer = TextScorer(moved, task, anchors[0], FAST)
    with scorer.engine:
        [first] = scorer.score(program)
        assert scorer.spent == 4
        assert scorer.score(program) == [first]
        assert scorer.spent == 4
        lm = language_model(scorer.engine).copy(rollout_id=1, temperature=1.0)
        drawn = [lm("q", temperature=1.0), lm.copy(rollout_id=2)("q"), lm("q", temperature=1.0)]
        assert drawn[0] == drawn[2] != drawn[1]
        assert scorer.spent == 6


def test_demonstrations_are_spread_over_the_answers() -> None:
    pool = [Example(str(i), "q", answer) for i, answer in enumerate("aabacb")]
    spread = spread_answers(pool)
    assert [e.answer for e in spread] == ["a", "b", "c", "a", "b", "a"]
    assert [e.id for e in spread if e.answer == "a"] == ["0", "1", "3"]


def test_a_policy_that_gives_one_answer_only_does_not_fill_a_text_with_it(task: Task) -> None:
    pool = [Example(str(i), "q", answer) for i, answer in enumerate("aaaabb")]
    metric = Metric(replace(task, grade=exact_match), pool)
    quota = AnswerQuota(metric, pool, demonstrations=4)
    says_a = dspy.Prediction(answer="a")
    gathered = [quota(example, says_a, trace=[]) for example in pool]
    assert gathered == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert [quota(example, says_a) for example in pool] == [1.0] * 4 + [0.0] * 2  # when scoring


def test_rows_per_pass_divide_the_batch() -> None:
    assert [largest_divisor(24, n) for n in (1, 5, 7, 24, 99)] == [1, 4, 6, 24, 24]


def test_an_adapter_that_changes_no_logit_stops_the_run(
    policy: Policy, task: Task, anchors: list[Anchor]
) -> None:
    """Something sets the adapter back to zero after every step, as a broken wrapper would."""

    class Rezeroing(torch.optim.AdamW):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            result = super().step(*args, **kwargs)
            start_fresh(policy.model, seed=0)
            return result

    channel = SlowChannel(GRPO, FastSlowTrainer)
    _, optimizer = channel._stage_parts(policy, task, anchors[0])
    channel._optimizer = Rezeroing(optimizer.param_groups)
    with pytest.raises(ChannelError, match="adapter changes no logit"):
        channel.adapt(policy, task, anchors[0], 1, silent)


def test_an_adapter_that_is_switched_off_stops_the_run(
    policy: Policy, task: Task, anchors: list[Anchor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It trains, and its weights change, but where the policy is scored it is never applied."""
    inner = policy.scorer.kl_to_base

    def switched_off(*rows: Any) -> Any:
        with policy.scorer.base_weights():
            return inner(*rows)

    monkeypatch.setattr(policy.scorer, "kl_to_base", switched_off)
    with pytest.raises(ChannelError, match="adapter changes no logit"):
        SlowChannel(GRPO, FastSlowTrainer).adapt(policy, task, anchors[0], 1, silent)


def test_training_holds_no_second_model(moved: Policy, task: Task, anchors: list[Anchor]) -> None:
    def tensors() -> dict[str, int]:
        named = [*moved.model.named_parameters(), *moved.model.named_buffers()]
        return {name: tensor.data_ptr() for name, tensor in named}

    before = tensors()
    trainer = FastSlowTrainer(moved, {task.name: task}, 2, GRPO)
    remedies = Remedies([("kl_budget", kl_budget(1e9, 4))])
    channel = SlowChannel(GRPO, FastSlowTrainer, remedies)
    channel.begin(moved, task, 0, takes_part=True)
    channel.adapt(moved, task, anchors[0], 1, silent)
    assert tensors() == before
    of_the_channel: Any = channel._trainer
    for made in (trainer, of_the_channel):
        assert made is not None
        assert made.model is moved.model
        assert made.ref_model is None
        modules = [v for v in vars(made).values() if isinstance(v, torch.nn.Module)]
        assert all(module is moved.model for module in modules)
    assert list(moved.model.peft_config) == ["default"]
