"""What an update optimises: averages, dropped groups, contexts, against TRL and hand values."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fastslow.channels.slow.channel import OPTIMIZER_FILE, STATE_FILE, SlowChannel
from fastslow.channels.slow.group_settings import DifficultyConfig
from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.channels.slow.settings import GrpoConfig
from fastslow.channels.slow.trl_rows import unpad
from fastslow.core.errors import ChannelError
from fastslow.core.prompts import BARE, PromptProgram
from fastslow.core.types import Anchor, Batch, Completion, Example, Grade, Sampling, TokenIds
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task
from tests.integration.channels.test_channels import BAD, GOOD, GRPO, Recorded, silent, two_texts
from tests.support.updates import changed, ending, scored_group, trainable

TEXTS = [GOOD, GOOD, BAD, BAD]
"""Of the four rollouts of a problem, under `two_texts`."""
SCRIPT = ("a", "bz", "zzz", "abcdz", *["zzzzz"] * 4, "aa", "z", "zz", "az")
"""Completions of three problems, ragged; the second problem's are all wrong."""
REWARDS = [[1.0, 0.5, 0.0, 0.8], [0.0] * 4, [1.0, 0.0, 0.0, 0.5]]
BATCH = Batch(tuple(("letters", Example(f"e{i}", f"question {i}", "abcdefgh")) for i in range(3)))
EXACT = changed(GRPO, max_grad_norm=1e9)


class Scripted(Recorded):
    """A sampler that writes what it is told, whatever it is asked."""

    def __init__(self, policy: Policy, script: tuple[str, ...]) -> None:
        super().__init__(policy.sampler)
        self.script = [(text, policy.tokenizer(text)["input_ids"]) for text in script]

    def sample(
        self, prompts: Any, sampling: Sampling, seeds: Any, *, adapter: bool = True
    ) -> list[Completion]:
        self.prompts += prompts
        assert len(prompts) == len(self.script)
        return [
            Completion(tuple(ids), (-1.0,) * len(ids), text, "length") for text, ids in self.script
        ]


def scripted(policy: Policy, script: tuple[str, ...] = SCRIPT) -> Scripted:
    policy.sampler = sampler = Scripted(policy, script)
    return sampler


def graded_trainer(
    policy: Policy, task: Task, settings: GrpoConfig, num_problems: int = 3
) -> FastSlowTrainer:
    """A trainer of problems of `task`, which has two texts."""
    two_texts(policy, task)
    return FastSlowTrainer(policy, {task.name: task}, num_problems, settings)


def learn(trainer: FastSlowTrainer, policy: Policy, task: Task) -> dict[str, float]:
    """One update on `BATCH`, whose step is the gradient."""
    plain = torch.optim.SGD(trainable(policy), lr=1.0)
    return trainer.update(BATCH, 1, ending(policy, task, BATCH, plain, max_norm=1e9))


def gradient_and_figures(
    policy: Policy, task: Task, settings: GrpoConfig, rows_later: int | None = None
) -> tuple[Tensor, dict[str, float]]:
    """Of one update on `BATCH`, in passes made smaller after the start if so asked; the weights
    are put back."""
    start = [p.detach().clone() for p in trainable(policy)]
    trainer = graded_trainer(policy, task, settings)
    if rows_later is not None:
        trainer.restore(trainer.progress() | {"rows_per_pass": rows_later})
    figures = learn(trainer, policy, task)
    steps = [(a - p.detach()).flatten() for a, p in zip(start, trainable(policy), strict=True)]
    with torch.no_grad():
        for value, parameter in zip(start, trainable(policy), strict=True):
            parameter.copy_(value)
    return torch.cat(steps), figures


def row_logprobs(policy: Policy, prompt: TokenIds, completion: TokenIds) -> Tensor:
    """Log-probability of each completion token, of one row by itself, without the trie."""
    logits: Tensor = policy.model(input_ids=torch.tensor([prompt + completion])).logits[0]
    predicting = logits[len(prompt) - 1 : -1].log_softmax(dim=-1)
    return predicting[range(len(completion)), list(completion)]


def by_hand(policy: Policy, averaging: str, kl: float, texts: Any) -> tuple[Tensor, Tensor]:
    """Loss and mean KL of `SCRIPT`, written out; the second problem is not in it."""
    loss, mean_kl = torch.zeros(()), torch.zeros(())
    sizes = [sum(len(SCRIPT[4 * g + i]) for i in range(4)) for g in range(3)]
    for group in (0, 2):
        rewards = torch.tensor(REWARDS[group])
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        share = 1 / (2 * sizes[group]) if averaging == "problem" else 1 / (sizes[0] + sizes[2])
        for i, text in enumerate(texts):
            prompt = policy.renderer.prompt_ids(text, BATCH.examples[group].question)
            completion = tuple(policy.tokenizer(SCRIPT[4 * group + i])["input_ids"])
            logprobs = row_logprobs(policy, prompt, completion)
            with torch.no_grad(), policy.model.disable_adapter():
                base = row_logprobs(policy, prompt, completion)
            k3 = torch.exp(base - logprobs) - (base - logprobs) - 1
            k3 = k3 * torch.exp(logprobs - logprobs.detach())  # 1, with the gradient of the sampler
            mean_kl = mean_kl + share * k3.sum()
            loss = loss - share * advantages[i] * logprobs.sum()
    return loss + kl * mean_kl, mean_kl


@pytest.mark.parametrize("context", ["with_text", "bare"])
@pytest.mark.parametrize("kl", [0.0, 0.3])
@pytest.mark.parametrize("averaging", ["problem", "token"])
def test_cispo_has_the_loss_and_the_gradient_of_the_formula(
    moved: Policy, task: Task, averaging: Any, kl: float, context: Any
) -> None:
    scripted(moved)
    settings = changed(EXACT, averaging=averaging, kl_coefficient=kl, gradient_context=context)
    gradient, figures = gradient_and_figures(moved, task, settings)
    texts = [BARE] * 4 if context == "bare" else TEXTS
    loss, mean_kl = by_hand(moved, averaging, kl, texts)
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, trainable(moved))])
    assert figures["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert (gradient - expected).norm() / expected.norm() < 1e-5
    assert figures["effective_groups"] == 2
    if kl:
        assert figures["kl_k3_tuned_base"] == pytest.approx(mean_kl.item(), rel=1e-4)


def test_the_two_averages_differ_on_ragged_groups(moved: Policy, task: Task) -> None:
    scripted(moved)
    problem, _ = gradient_and_figures(moved, task, EXACT)
    token, _ = gradient_and_figures(moved, task, changed(EXACT, averaging="token"))
    assert (problem - token).norm() / problem.norm() > 1e-2


@pytest.mark.parametrize(
    ("loss", "averaging"),
    [("cispo", "problem"), ("cispo", "token"), *((n, "problem") for n in ("grpo", "dapo"))],
)
def test_one_pass_of_all_ragged_rows_equals_passes_of_one(
    moved: Policy, task: Task, loss: str, averaging: Any
) -> None:
    scripted(moved)
    settings = changed(EXACT, loss=loss, averaging=averaging, kl_coefficient=0.1)
    whole, figures = gradient_and_figures(moved, task, changed(settings, rows_per_forward=12))
    for smaller in ({"rows_per_forward": 1}, {"rows_per_forward": 3}, {"tokens_per_forward": 60}):
        parts, same = gradient_and_figures(moved, task, changed(settings, **smaller))
        assert (whole - parts).norm() / whole.norm() < 1e-5
        for name in ("kl_k3_tuned_base", "entropy"):
            assert same[name] == pytest.approx(figures[name], rel=1e-4)


@pytest.mark.parametrize("loss", ["cispo", "grpo", "dr_grpo", "dapo"])
def test_passes_that_became_smaller_leave_loss_and_gradient_as_they_are(
    moved: Policy, task: Task, loss: str
) -> None:
    """As when memory runs out, or a run resumes after it did."""
    scripted(moved)
    settings = changed(EXACT, loss=loss, kl_coefficient=0.1)
    whole, figures = gradient_and_figures(moved, task, settings)
    parts, same = gradient_and_figures(moved, task, settings, rows_later=3)
    assert (whole - parts).norm() / whole.norm() < 1e-5
    assert same["loss"] == pytest.approx(figures["loss"], rel=1e-4)


def test_a_completion_ends_where_the_engine_says_whatever_token_stands_there(
    moved: Policy, task: Task
) -> None:
    """A chat template may end turns with a token that is not the tokenizer's end of text."""
    engine = scripted(moved)
    said = engine.sample

    def ended(*request: Any, **options: Any) -> list[Completion]:
        drawn = said(*request, **options)
        return [replace(c, finish="stop") if at % 4 else c for at, c in enumerate(drawn)]

    engine.sample = ended  # type: ignore[method-assign]  # three of four end by themselves
    assert gradient_and_figures(moved, task, EXACT)[1]["unfinished_frac"] == 0.25


@pytest.mark.parametrize("loss", ["cispo", "grpo", "dr_grpo", "dapo"])
def test_groups_of_equal_rewards_get_advantages_of_exactly_zero(
    policy: Policy, task: Task, loss: str
) -> None:
    rewards = [0.3] * 4 + [0.9, 0.3, 0.3, 0.3] + [0.7] * 4
    left = iter(rewards)
    graded = replace(task, grade=lambda *unused: Grade(next(left), "in order"))
    trainer = graded_trainer(policy, graded, changed(GRPO, loss=loss))
    rows = scored_group(trainer, graded, BATCH.examples)
    advantages = rows["advantages"].view(3, 4)
    assert torch.equal(advantages[[0, 2]], torch.zeros(2, 4))
    scale = 1.0 if loss == "dr_grpo" else 0.3 + 1e-4
    expected = torch.tensor([0.45, -0.15, -0.15, -0.15]) / scale
    torch.testing.assert_close(advantages[1], expected)
    assert ("tool_mask" in rows) == (loss == "cispo")


def test_a_single_success_is_capped_and_its_group_still_sums_to_zero(
    policy: Policy, task: Task
) -> None:
    left = iter([1.0, 0.0, 0.0, 0.0])
    graded = replace(task, grade=lambda *unused: Grade(next(left), "in order"))
    settings = changed(GRPO, difficulty=DifficultyConfig(lucky_cap=0.6))
    trainer = graded_trainer(policy, graded, settings, num_problems=1)
    advantages = scored_group(trainer, graded, BATCH.examples[:1])["advantages"]
    torch.testing.assert_close(advantages, torch.tensor([0.6, -0.2, -0.2, -0.2]))


@pytest.mark.parametrize("loss", ["cispo", "grpo"])
def test_a_batch_without_signal_moves_nothing_by_kl_momentum_or_decay(
    moved: Policy, task: Task, anchors: list[Anchor], loss: str
) -> None:
    settings = changed(GRPO, loss=loss, kl_coefficient=0.5, weight_decay=0.1)
    channel = SlowChannel(settings, FastSlowTrainer)
    channel.adapt(moved, task, anchors[0], 1, silent)
    assert isinstance(channel._trainer, FastSlowTrainer)
    assert channel._optimizer is not None
    weights = moved.weights_fingerprint()
    moments = [s["exp_avg"].clone() for s in channel._optimizer.state.values()]
    channel._trainer.tasks = {task.name: replace(task, grade=lambda *unused: Grade(0.3, "always"))}
    adaptation = channel.adapt(moved, task, anchors[1], 2, silent)
    assert moved.weights_fingerprint() == weights
    after = [s["exp_avg"] for s in channel._optimizer.state.values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, after, strict=True))
    assert adaptation.metrics["skipped_updates"] == 2
    assert adaptation.metrics["effective_groups"] == 0
    assert adaptation.metrics["reward"] == pytest.approx(0.3)
    assert "loss" not in adaptation.metrics
    assert channel._step == 2


def test_a_stage_that_has_only_skipped_updates_so_far_can_be_resumed(
    moved: Policy, task: Task, anchors: list[Anchor], tmp_path: Path
) -> None:
    mute = replace(task, grade=lambda *unused: Grade(0.0, "always"))
    channel = SlowChannel(GRPO, FastSlowTrainer)
    channel.adapt(moved, mute, anchors[0], 1, silent)
    channel.save(tmp_path)
    rates = json.loads((tmp_path / STATE_FILE).read_text())["progress"]["difficulty"]["rates"]
    assert set(rates[task.name]) == {e.id for e in anchors[0].examples}
    again = SlowChannel(GRPO, FastSlowTrainer)
    again.load(tmp_path)
    (tmp_path / "unchanged").mkdir()
    again.save(tmp_path / "unchanged")
    for name in (STATE_FILE, OPTIMIZER_FILE):
        assert (tmp_path / "unchanged" / name).read_bytes() == (tmp_path / name).read_bytes()
    assert again.adapt(moved, task, anchors[1], 2, silent).metrics["skipped_updates"] < 2
    assert again._step > 0


def test_problems_outside_the_trained_bands_make_no_update(
    moved: Policy, task: Task, anchors: list[Anchor]
) -> None:
    weights = moved.weights_fingerprint()
    only_solved = changed(GRPO, difficulty=DifficultyConfig(train_bands=("solved",)))
    metrics = (
        SlowChannel(only_solved, FastSlowTrainer).adapt(moved, task, anchors[0], 1, silent).metrics
    )
    assert metrics["zero_variance_frac"] < 1
    assert metrics["skipped_updates"] == 2
    assert moved.weights_fingerprint() == weights


def test_bare_context_draws_under_the_text_and_scores_the_bare_problem(
    moved: Policy, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = scripted(moved)
    trainer = graded_trainer(moved, task, changed(GRPO, gradient_context="bare"))
    scorer = trainer._get_per_token_logps_and_entropies
    scored: list[set[TokenIds]] = []

    def spy(model: Any, ids: Tensor, mask: Tensor, keep: int, **rest: Any) -> Any:
        scored.append(set(unpad(ids, mask, keep)[0]))
        return scorer(model, ids, mask, keep, **rest)

    monkeypatch.setattr(trainer, "_get_per_token_logps_and_entropies", spy)
    learn(trainer, moved, task)
    render = moved.renderer.prompt_ids
    bare = [render(PromptProgram(""), e.question) for e in BATCH.examples]
    reference, loss = scored
    assert reference == set(bare)
    assert loss == {bare[0], bare[2]}  # the second group has no signal
    assert set(engine.prompts) == {render(t, e.question) for t in TEXTS for e in BATCH.examples}
    assert not set(engine.prompts) & set(bare)


def test_alarms_are_counted_and_said_in_the_samples(
    moved: Policy, task: Task, anchors: list[Anchor]
) -> None:
    scripted(moved, ("aaaaaaaaz", "a" * 9, "z" * 9, "zzzzzzzza") * 2)
    adaptation = SlowChannel(GRPO, FastSlowTrainer).adapt(moved, task, anchors[1], 1, silent)
    assert adaptation.metrics["alarm/repetition"] == 2
    assert adaptation.metrics["alarm/length_collapse"] == 0
    alarms = [line for line in adaptation.samples if "| alarm |" in line]
    assert [line.split(" | ")[0] for line in alarms] == ["step 3", "step 4"]


@pytest.mark.parametrize("kl", [0.0, 0.001])
def test_a_loss_mask_that_covers_no_token_stops_the_run(
    moved: Policy, task: Task, kl: float
) -> None:
    scripted(moved)
    trainer = graded_trainer(moved, task, changed(GRPO, kl_coefficient=kl))
    trainer.mask_truncated_completions = True  # none of them ends with a stop token
    with pytest.raises(ChannelError, match=r"mask covers 0 tokens.*pad_token"):
        learn(trainer, moved, task)


def test_a_completion_without_any_token_stops_the_run(moved: Policy, task: Task) -> None:
    scripted(moved, ("", *SCRIPT[1:]))
    trainer = graded_trainer(moved, task, GRPO)
    with pytest.raises(ChannelError, match=r"1 completions without any token, for problems e0"):
        learn(trainer, moved, task)
