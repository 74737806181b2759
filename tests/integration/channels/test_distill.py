"""Distillation as the slow channel, on a tiny model: what is taught to whom, and that it works."""

import os
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fastslow.channels.slow.distill import DistillTrainer
from fastslow.channels.slow.settings import DistillConfig
from fastslow.core.prompts import BARE, Candidate, Demonstration, PromptProgram
from fastslow.core.types import Batch, Grade
from fastslow.policy.policy import Policy, seed_program
from fastslow.task.definition import Task
from tests.integration.channels.test_channels import BAD, GOOD
from tests.integration.channels.test_losses import SCRIPT, scripted
from tests.support.adapters import move
from tests.support.updates import batch_of, changed, ending, set_texts, trainable

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # its functions may change: that is tested
from trl.experimental.sdft.loss_utils import (
    compute_full_logit_self_distillation_loss,
)

SETTINGS = DistillConfig(group=4, teacher_weights="present", student="bare", warmup_steps=0)
TEXT = PromptProgram("Write letters.", (Demonstration("zz", "bbbb"), Demonstration("q", "bb")))


def learn(
    policy: Policy, task: Task, settings: DistillConfig, batch: Batch, lr: float = 1.0
) -> tuple[DistillTrainer, dict[str, float]]:
    """One update whose step is the gradient, times the rate."""
    trainer = DistillTrainer(policy, {task.name: task}, len(batch.rows), settings)
    plain = torch.optim.SGD(trainable(policy), lr=lr)
    return trainer, trainer.update(batch, 1, ending(policy, task, batch, plain, max_norm=1e9))


def row_logits(policy: Policy, prompt: Any, completion: Any) -> Tensor:
    ids = torch.tensor([[*prompt, *completion]])
    every: Tensor = policy.model(input_ids=ids, use_cache=False).logits[0]
    return every[len(prompt) - 1 : -1]


@pytest.mark.parametrize(("rows", "tokens"), [(64, 1024), (5, 1024), (64, 60)])
@pytest.mark.parametrize(("divergence", "alpha"), [("reverse", 1.0), ("forward", 0.0)])
def test_loss_and_gradient_are_trls_on_padded_logits(
    moved: Policy, task: Task, divergence: Any, alpha: float, rows: int, tokens: int
) -> None:
    set_texts(moved, task, GOOD, BAD)
    scripted(moved)
    moved.model.double()
    batch = batch_of(task, task.train[:3])
    limits = {"rows_per_forward": rows, "tokens_per_forward": tokens}
    settings = changed(SETTINGS, divergence=divergence, **limits)
    start = [weight.detach().clone() for weight in trainable(moved)]
    trainer, figures = learn(moved, task, settings, batch)
    step = torch.cat(
        [(a - w.detach()).flatten() for a, w in zip(start, trainable(moved), strict=True)]
    )
    moved.adapters.put(dict(zip(moved.adapters.trainable(), start, strict=True)))
    assert [row.completion for row in trainer.rows] == [
        tuple(moved.tokenizer(text)["input_ids"]) for text in SCRIPT
    ]
    prompts = [moved.renderer.prompt_ids(BARE, e.question) for e in task.train[:3]]
    assert [row.prompt for row in trainer.rows] == [p for p in prompts for _ in range(4)]

    informed = [
        moved.renderer.prompt_ids(text, e.question)
        for e in task.train[:3]
        for text in (GOOD, GOOD, BAD, BAD)
    ]
    with torch.no_grad():
        teachers = [
            row_logits(moved, prompt, row.completion)
            for prompt, row in zip(informed, trainer.rows, strict=True)
        ]
    students = [row_logits(moved, row.prompt, row.completion) for row in trainer.rows]
    pad = torch.nn.utils.rnn.pad_sequence
    values = compute_full_logit_self_distillation_loss(
        pad(students, batch_first=True), pad(teachers, batch_first=True), distillation_alpha=alpha
    )
    lengths = torch.tensor([len(row.completion) for row in trainer.rows])
    loss = (values.sum(-1) / lengths).mean()
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, trainable(moved))])
    assert figures["loss"] == pytest.approx(float(loss.detach()), rel=1e-6)
    assert float((step - expected).norm() / expected.norm()) < 1e-6
    assert figures["taught_rows"] == 12
    assert not figures["skipped_updates"]


def test_equal_prompts_teach_nothing_and_make_no_step(moved: Policy, task: Task) -> None:
    set_texts(moved, task, seed_program(task))
    before = moved.weights_fingerprint()
    trainer, figures = learn(
        moved, task, changed(SETTINGS, student="seed"), batch_of(task, task.train[:2])
    )
    assert (figures["skipped_updates"], figures["taught_rows"]) == (1.0, 0.0)
    assert "loss" not in figures
    assert not trainer.has_signal(figures)
    assert moved.weights_fingerprint() == before


def teacher_prompts(trainer: DistillTrainer) -> list[Any]:
    return [row.teacher.prompt for row in trainer.rows if row.teacher]


def test_the_teacher_is_shown_the_gold_answer_or_a_success_of_the_group(
    moved: Policy, task: Task
) -> None:
    set_texts(moved, task, GOOD, BAD)
    examples = task.train[:3]
    prompt_ids, informed_ids = moved.renderer.prompt_ids, moved.renderer.informed_ids
    settings = changed(SETTINGS, teacher="answer", student="with_text")
    trainer, _ = learn(moved, task, settings, batch_of(task, examples))
    assert teacher_prompts(trainer) == [
        informed_ids(text, e.question, e.answer)
        for e in examples
        for text in (GOOD, GOOD, BAD, BAD)
    ]
    assert [row.prompt for row in trainer.rows] == [
        prompt_ids(text, e.question) for e in examples for text in (GOOD, GOOD, BAD, BAD)
    ]
    scripted(moved)
    winners = {SCRIPT[1]: 1.0, SCRIPT[10]: 1.0, SCRIPT[2]: 0.9}
    graded = replace(task, grade=lambda e, text: Grade(winners.get(text, 0.0), ""))
    settings = changed(SETTINGS, teacher="success")
    trainer, figures = learn(moved, graded, settings, batch_of(task, examples))
    assert figures["taught_rows"] == 8  # the second group has no success
    assert figures["student_score"] == pytest.approx((1 + 1 + 0.9) / 12)
    assert teacher_prompts(trainer) == [
        informed_ids(text, e.question, answer)
        for e, answer in ((examples[0], SCRIPT[1]), (examples[2], SCRIPT[10]))
        for text in (GOOD, GOOD, BAD, BAD)
    ]


def test_a_prompt_that_is_no_better_than_the_student_does_not_teach(
    moved: Policy, task: Task
) -> None:
    examples = task.train[:3]
    scripted(moved)
    graded = replace(task, grade=lambda e, text: Grade(float(e.id == examples[0].id), ""))
    scores = {examples[0].id: 1.0, examples[1].id: 1.0}  # the third was not scored
    moved.populations[task.name] = (Candidate(GOOD, scores),)
    settings = changed(SETTINGS, only_where_better=True)
    trainer, figures = learn(moved, graded, settings, batch_of(task, examples))
    taught = {row.prompt for row in trainer.rows}
    assert taught == {moved.renderer.prompt_ids(BARE, e.question) for e in examples[1:]}
    assert figures["teacher_score"] == 1.0


def test_teachers_draws_are_made_under_its_prompt(moved: Policy, task: Task) -> None:
    set_texts(moved, task, GOOD)
    sampler = scripted(moved)
    learn(moved, task, changed(SETTINGS, draw_from="teacher"), batch_of(task, task.train[:3]))
    expected = {moved.renderer.prompt_ids(GOOD, e.question) for e in task.train[:3]}
    assert set(sampler.prompts) == expected


def test_the_mean_of_the_weights_follows_them(moved: Policy, task: Task) -> None:
    set_texts(moved, task, TEXT)
    start = moved.adapters.copied()
    settings = changed(SETTINGS, teacher_weights="ema", ema_rate=0.25)
    trainer, _ = learn(moved, task, settings, batch_of(task, task.train[:3]), lr=10.0)
    now = moved.adapters.copied()
    assert any(not torch.equal(now[name], start[name]) for name in now)
    for name, mean in trainer.tensors().items():
        torch.testing.assert_close(mean, start[name] + 0.25 * (now[name] - start[name]))


def kl_after(
    policy: Policy, task: Task, prompts: str, num_updates: int = 20
) -> tuple[float, float]:
    """Divergence from the planted teacher before and after updates, on the first rows drawn."""
    from fastslow.channels.slow.remedies.base import TaughtRow, Teacher
    from fastslow.channels.slow.teaching import mean_loss, teach

    move(policy, seed=2, size=0.5)
    planted = policy.adapters.copied()
    move(policy, seed=3, size=0.5)
    ids = [policy.renderer.prompt_ids(BARE, e.question) for e in task.train[:12]]
    shuffled = [*ids[5:], *ids[:5]]
    completion = (30, 31, 32)
    rows = [TaughtRow(p, completion, teacher=Teacher(planted, p)) for p in ids]
    taught = [
        TaughtRow(p, completion, teacher=Teacher(planted if prompts == "own" else "base", t))
        for p, t in zip(ids, ids if prompts == "own" else shuffled, strict=True)
    ]
    before = mean_loss(policy, rows)
    optimizer = torch.optim.AdamW(trainable(policy), lr=0.01)
    for _ in range(num_updates):
        for summand in teach(policy, taught):
            summand.backward()  # type: ignore[no-untyped-call]  # torch's own
        optimizer.step()
        optimizer.zero_grad()
    return before, mean_loss(policy, rows)


def test_a_planted_teacher_is_approached_and_another_one_is_not(policy: Policy, task: Task) -> None:
    before, after = kl_after(policy, task, "own")
    assert after < 0.5 * before
    before, after = kl_after(policy, task, "another's")
    assert after > 0.5 * before
