"""The slow channel on gold answers, against the real TRL, over a tiny model."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fastslow.channels.slow.channel import SlowChannel
from fastslow.channels.slow.settings import SftConfig
from fastslow.channels.slow.sft import IGNORED, GoldTrainer, sft_arguments, split_labelled
from fastslow.core.errors import ChannelError
from fastslow.core.prompts import BARE, Demonstration, PromptProgram
from fastslow.core.types import Anchor, Batch, Example
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task
from tests.support.updates import changed, ending, set_texts, trainable

SFT = SftConfig(
    gradient_context="with_text",
    lr=0.01,
    warmup_steps=1,
    weight_decay=0.0,
    max_grad_norm=1.0,
    rows_per_forward=64,
)
TEXTS = (
    PromptProgram("Write letters.", (Demonstration("q", "ab"), Demonstration("r", "c"))),
    PromptProgram("Letters, please, and several of them."),
)
RAGGED = Batch(
    (
        ("letters", Example("short", "q", "a")),
        ("letters", Example("long", "a much longer question than the other", "abcdefgh abcdefgh")),
        ("letters", Example("empty", "r", "")),
    )
)


def silent(done: int, total: int, figures: object) -> None:
    """A log that keeps nothing."""


def two_texts(policy: Policy, task: Task) -> None:
    set_texts(policy, task, *TEXTS)


def gradient(policy: Policy) -> torch.Tensor:
    """The gradient as one vector; it is cleared."""
    found = torch.cat([p.grad.flatten() for p in trainable(policy) if p.grad is not None])
    policy.model.zero_grad()
    return found


def one_update(
    policy: Policy, task: Task, settings: SftConfig, batch: Batch
) -> tuple[GoldTrainer, dict[str, float], torch.Tensor]:
    """Trainer, figures and gradient of one update, which is taken back."""
    two_texts(policy, task)
    trainer = GoldTrainer(policy, {task.name: task}, len(batch.examples), settings)
    before = [p.detach().clone() for p in trainable(policy)]
    plain = torch.optim.SGD(trainable(policy), lr=1.0)  # its step is the gradient
    finish = ending(policy, task, batch, plain, max_norm=settings.max_grad_norm)
    figures = trainer.update(batch, 0, finish)
    step = torch.cat(
        [(a - b.detach()).flatten() for a, b in zip(before, trainable(policy), strict=True)]
    )
    with torch.no_grad():
        for parameter, value in zip(trainable(policy), before, strict=True):
            parameter.copy_(value)
    return trainer, figures, step


def test_rows_are_what_the_renderer_gives_and_trl_masks_the_prompt(
    policy: Policy, task: Task
) -> None:
    trainer = GoldTrainer(policy, {task.name: task}, 3, SFT)
    pairs = [(text, example) for example in RAGGED.examples for text in TEXTS]
    labelled = trainer.labelled([trainer._row(task, text, example) for text, example in pairs])
    stop = policy.tokenizer.eos_token_id
    for row, (text, example) in zip(labelled, pairs, strict=True):
        prompt = policy.renderer.prompt_ids(text, example.question)
        answer = (*policy.tokenizer(example.answer)["input_ids"], stop)
        assert tuple(row["input_ids"]) == prompt + answer
        assert tuple(row["labels"]) == (IGNORED,) * len(prompt) + answer


def test_every_problem_is_taught_under_every_text_or_without_any(
    policy: Policy, task: Task
) -> None:
    trainer, figures, _ = one_update(policy, task, SFT, RAGGED)
    expected = [(example.id, text) for example in RAGGED.examples for text in TEXTS]
    assert [(row.example.id, row.program) for row in trainer.rows] == expected
    assert figures["loss_tokens"] == 2 * sum(len(e.answer) + 1 for e in RAGGED.examples)
    assert figures["overlong_frac"] == pytest.approx(1 / 3)  # the task allows 6 tokens
    assert trainer._texts(task) == TEXTS
    bare = GoldTrainer(policy, {task.name: task}, 3, changed(SFT, gradient_context="bare"))
    assert bare._texts(task) == (BARE,)


@pytest.mark.parametrize(("rows", "tokens"), [(1, 1024), (4, 1024), (64, 1024), (64, 60)])
def test_loss_and_gradient_are_those_of_the_stock_trainer(
    moved: Policy, task: Task, tmp_path: Path, rows: int, tokens: int
) -> None:
    from datasets import Dataset
    from trl import SFTTrainer

    limits = {"rows_per_forward": rows, "tokens_per_forward": tokens}
    settings = changed(SFT, **limits, max_grad_norm=1e9)
    trainer, figures, ours = one_update(moved, task, settings, RAGGED)
    stock = SFTTrainer(
        model=moved.model,
        args=sft_arguments(str(tmp_path), "cpu", len(trainer.rows)),
        train_dataset=Dataset.from_list([row.to_trl() for row in trainer.rows]),
        processing_class=moved.tokenizer,
    )
    stock.current_gradient_accumulation_steps = 1
    inputs = stock.data_collator(list(stock.train_dataset))
    loss = float(stock.training_step(stock.model, inputs))
    theirs = gradient(moved)
    assert theirs.norm() > 0.01
    assert figures["loss"] == pytest.approx(loss, rel=1e-5)
    assert (ours - theirs).norm() / theirs.norm() < 1e-5
    assert figures["grad_norm"] == pytest.approx(float(theirs.norm()), rel=1e-5)


def test_only_the_answer_carries_loss(moved: Policy, task: Task) -> None:
    trainer, figures, _ = one_update(moved, task, SFT, RAGGED)
    prompts, answers = [r.prompt for r in trainer.rows], [r.answer for r in trainer.rows]
    scored = moved.scorer.logprobs(prompts, answers)
    tokens = [value for row in scored for value in row]
    assert figures["loss"] == pytest.approx(-sum(tokens) / len(tokens), rel=1e-5)
    assert figures["loss_tokens"] == len(tokens)
    assert figures["gold_logprob"] == pytest.approx(sum(tokens) / len(scored), rel=1e-5)


def test_rows_without_a_token_of_loss_stop_the_run(
    policy: Policy, task: Task, anchors: list[Anchor], monkeypatch: pytest.MonkeyPatch
) -> None:
    two_texts(policy, task)
    from trl import SFTTrainer

    def masked(self: Any, dataset: Any, *unused: Any) -> Any:
        """What TRL would give if it did not see the answers."""
        return dataset.map(lambda row: {"labels": [IGNORED] * len(row["input_ids"])})

    monkeypatch.setattr(SFTTrainer, "_prepare_dataset", masked)
    with pytest.raises(ChannelError, match=r"no token carries loss.*train-"):
        SlowChannel(SFT, GoldTrainer).adapt(policy, task, anchors[0], 1, silent)


def test_padding_on_either_side_is_undone() -> None:
    ids = torch.tensor([[0, 5, 6, 7], [5, 6, 7, 8]])
    mask = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 0]])
    labels = torch.tensor([[-100, -100, 6, 7], [-100, -100, 7, -100]])
    assert split_labelled(ids, mask, labels) == ([(5,), (5, 6)], [(6, 7), (7,)])


def test_loss_falls_without_a_rollout_and_gold_answers_become_likelier(
    policy: Policy, task: Task, anchors: list[Anchor]
) -> None:
    two_texts(policy, task)
    texts = policy.texts_fingerprint()
    channel = SlowChannel(SFT, GoldTrainer)
    seen: list[Any] = []
    for anchor in anchors * 3:
        done = channel.adapt(policy, task, anchor, 1, lambda *args: seen.append(args[2]))
        assert done.rollouts == done.metrics["rollouts"] == 0
    assert len(seen) == 18
    # Random tied embeddings keep the tiny model's logits within about 0.6 of zero.
    assert seen[-1]["loss"] < seen[0]["loss"] - 0.3
    assert seen[-1]["gold_logprob"] > seen[0]["gold_logprob"] + 9 * 0.3
    assert policy.texts_fingerprint() == texts
    assert policy.sampler.num_rollouts == 0
    assert "gold, log-prob" in done.samples[0]
    assert len(done.samples) == 4


def test_channel_loaded_from_its_files_goes_on_as_if_never_stopped(
    policy: Policy, task: Task, anchors: list[Anchor], tmp_path: Path
) -> None:
    two_texts(policy, task)
    channel = SlowChannel(SFT, GoldTrainer)
    channel.adapt(policy, task, anchors[0], 1, silent)
    policy.save(tmp_path / "policy")
    channel.save(tmp_path)
    channel.adapt(policy, task, anchors[1], 2, silent)
    uninterrupted = policy.weights_fingerprint()

    policy.load(tmp_path / "policy")
    again = SlowChannel(SFT, GoldTrainer)
    again.load(tmp_path)
    again.adapt(policy, task, anchors[1], 2, silent)
    assert policy.weights_fingerprint() == uninterrupted


def test_answers_that_are_certain_already_need_not_change_the_adapter(
    policy: Policy, task: Task
) -> None:
    trainer = GoldTrainer(policy, {task.name: task}, 2, SFT)
    assert not trainer.has_signal({"loss": 0.0})
    assert trainer.has_signal({"loss": 1e-7})


def test_integrity_is_that_of_every_slow_channel(
    moved: Policy, task: Task, anchors: list[Anchor]
) -> None:
    with pytest.raises(ChannelError, match="bit-identical after its updates"):
        SlowChannel(changed(SFT, lr=1e-30), GoldTrainer).adapt(moved, task, anchors[0], 1, silent)
    with pytest.raises(ChannelError, match=r"not finite.*train-"):
        SlowChannel(changed(SFT, lr=1e30), GoldTrainer).adapt(moved, task, anchors[0], 1, silent)
    moved.model.requires_grad_(False)
    with pytest.raises(ChannelError, match="nothing to train"):
        SlowChannel(SFT, GoldTrainer).adapt(moved, task, anchors[0], 1, silent)
