"""Rollouts drawn elsewhere: the correction is TRL's, under the prompt of the draw."""

import math
from typing import Any

import pytest
import torch

from fastslow.channels.slow.elsewhere import RATIO_CAP, Mismatch, compare
from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.channels.slow.passes import PassSize
from fastslow.channels.slow.rollouts import Request, draw_rollouts
from fastslow.core.prompts import BARE
from fastslow.core.types import Completion, Sampling
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task
from tests.integration.channels.test_channels import GOOD, GRPO, two_texts
from tests.support.updates import changed, scored_group

SHIFTS = (0.0, 0.1, -0.05, 0.9)
"""By which a sampler is less sure of every token than the trainer, row by row, in nats."""


class Elsewhere:
    """The policy's own engine, as another program would report its log-probabilities."""

    def __init__(self, policy: Policy) -> None:
        self.num_rollouts, self.num_tokens, self.swap_s = 0, 0, 0.0
        self._inner = policy.sampler

    def sample(
        self, prompts: Any, sampling: Sampling, seeds: Any, *, adapter: bool = True
    ) -> list[Completion]:
        rows = self._inner.sample(prompts, sampling, seeds, adapter=adapter)
        shifts = [SHIFTS[row % len(SHIFTS)] for row in range(len(rows))]
        return [
            Completion(r.token_ids, tuple(p - shift for p in r.logprobs), r.text, r.finish)
            for r, shift in zip(rows, shifts, strict=True)
        ]


@pytest.fixture
def elsewhere(moved: Policy) -> Policy:
    moved.sampler = Elsewhere(moved)
    return moved


def test_ratios_and_figures_have_their_values(elsewhere: Policy, task: Task) -> None:
    requests = [Request(task, GOOD, example) for example in task.train[:4]]
    rollouts = draw_rollouts(elsewhere, requests, 1.0, range(4))
    mismatch = compare(elsewhere, rollouts, PassSize(3, 10**6))
    lengths = [len(r.completion.token_ids) for r in rollouts]
    sums = [shift * length for shift, length in zip(SHIFTS, lengths, strict=True)]
    expected = [math.exp(s) if math.exp(s) <= RATIO_CAP else 0.0 for s in sums]
    assert expected[3] == 0.0
    assert mismatch.ratios is not None
    assert mismatch.ratios.tolist() == pytest.approx(expected, abs=1e-4)
    k3 = [n * (math.expm1(shift) - shift) for shift, n in zip(SHIFTS, lengths, strict=True)]
    assert mismatch.figures == pytest.approx(
        {"mismatch_kl": sum(k3) / sum(lengths), "masked_share": 0.25}, abs=1e-5
    )


def test_nothing_is_corrected_where_the_trainer_draws(moved: Policy, task: Task) -> None:
    rollouts = draw_rollouts(moved, [Request(task, GOOD, task.train[0])], 1.0, [0])
    assert compare(moved, rollouts, PassSize(3, 10**6)) == Mismatch.none()
    advantages = torch.tensor([0.5, -0.5])
    assert Mismatch.none().weigh(advantages) is advantages


def test_a_draw_is_compared_under_its_own_prompt_whatever_the_loss_reads(
    elsewhere: Policy, task: Task
) -> None:
    two_texts(elsewhere, task)
    bare = changed(GRPO, gradient_context="bare")
    trainer = FastSlowTrainer(elsewhere, {task.name: task}, 1, bare)
    scored_group(trainer, task, task.train[:1])
    ratios = trainer.mismatch.ratios
    lengths = [len(r.completion.token_ids) for r in trainer.rollouts]
    assert ratios is not None
    assert ratios[:3].tolist() == pytest.approx(
        [math.exp(s * n) for s, n in zip(SHIFTS, lengths[:3], strict=False)], abs=1e-4
    )
    [row, *_] = trainer.rollouts
    drawn, read = (
        elsewhere.renderer.prompt_ids(text, row.example.question) for text in (row.program, BARE)
    )
    assert drawn != read


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "cispo"])
def test_ratio_and_loss_are_those_of_trls_own_correction(
    elsewhere: Policy, task: Task, loss: str
) -> None:
    two_texts(elsewhere, task)
    settings = changed(GRPO, loss=loss, kl_coefficient=0.1)
    trainer: Any = FastSlowTrainer(elsewhere, {task.name: task}, 2, settings)
    ours = scored_group(trainer, task, task.train[:2])
    assert ours["advantages"].abs().max() > 0

    def loss_of(rows: Any) -> Any:
        trainer._expect_passes(1)
        return trainer._compute_loss(trainer.model, rows)

    mine = loss_of(ours)
    # TRL's own, of the same draws: it takes the sampler's log-probabilities and corrects
    gated = ours["advantages"] / trainer.mismatch.ratios.clamp(min=1e-9).to(torch.float32)
    inner = trainer.rollout_func
    drawn = [list(r.completion.logprobs) for r in trainer.rollouts]
    trainer.rollout_func = lambda *args: inner(*args) | {"logprobs": drawn}
    trainer.use_vllm = True
    trainer._last_loaded_step = trainer.state.global_step
    theirs = super(FastSlowTrainer, trainer)._generate_and_score_completions(
        [{"prompt": ""}] * trainer.num_local_rows
    )
    ratio = theirs["importance_sampling_ratio"][:, 0]
    assert trainer.mismatch.ratios.tolist() == pytest.approx(ratio.tolist(), abs=1e-4)
    assert 0.0 in ratio.tolist()
    kept = ratio > 0
    advantages = torch.where(kept, gated, theirs["advantages"])
    rows = dict(ours) | {
        "advantages": advantages,
        "importance_sampling_ratio": theirs["importance_sampling_ratio"],
    }
    torch.testing.assert_close(mine, loss_of(rows), atol=1e-5, rtol=0)
