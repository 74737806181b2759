"""Loss around deployed weights, on a tiny real model whose base must come back."""

from collections.abc import Iterator
from statistics import fmean

import pytest
import torch

from fastslow.core.types import Metric
from fastslow.measure.base import Measured, RowSize, Snapshot
from fastslow.measure.model.magnitudes import Deltas, random_products
from fastslow.measure.model.perturbation import PerturbationConfig, losses_around, perturbation
from fastslow.policy.adapter.deltas import WeightDelta
from fastslow.policy.policy import Policy, seed_program
from fastslow.task.definition import Task


def curve(policy: Policy, task: Task, deltas: Deltas, *norms: float) -> dict[float, list[float]]:
    before = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    losses = losses_around(policy, seed_program(task), task.validation, deltas, norms, [5, 6, 7])
    for name, parameter in policy.model.named_parameters():
        assert torch.equal(parameter, before[name])
    return losses


def test_the_curve_starts_at_the_deployed_loss_and_leaves_it_with_the_norm(
    moved: Policy, task: Task
) -> None:
    losses = curve(moved, task, lambda: moved.adapters.deltas(None, None), 1e-4, 2.0)
    prompts = [moved.renderer.prompt_ids(seed_program(task), e.question) for e in task.validation]
    answers = [moved.renderer.answer_ids(example.answer) for example in task.validation]
    deployed = fmean(-sum(row) for row in moved.scorer.logprobs(prompts, answers))
    assert losses[0.0] == [pytest.approx(deployed, abs=1e-3)]
    near, far = ([abs(loss - deployed) for loss in losses[norm]] for norm in (1e-4, 2.0))
    assert len(set(near)) == len(set(far)) == 3  # each direction is another one
    assert max(near) < 0.01 < min(far)
    assert curve(moved, task, lambda: moved.adapters.deltas(None, None), 1e-4, 2.0) == losses


def test_a_direction_has_the_norm_and_rank_of_each_matrix(moved: Policy) -> None:
    def deltas() -> Iterator[WeightDelta]:
        return moved.adapters.deltas(None, None)

    for delta, product in zip(deltas(), random_products(deltas, 3), strict=True):
        assert product.name == delta.name
        assert float(product.dense().norm()) == pytest.approx(float(delta.dense().norm()), rel=1e-4)
        assert torch.linalg.matrix_rank(product.dense()) == 4


def figures(policy: Policy, task: Task) -> tuple[list[Metric], dict[str, float]]:
    """What the measure says after a first stage on the task."""
    snapshot = Snapshot(
        policy,
        1,
        {task.name: task},
        (task.name,),
        task.name,
        test_sample=lambda task: task.test,
        scores=lambda task: {},
        arm_scores=lambda task, arm: {},
        validation_sample=lambda task, size: task.validation[:size],
        stage_change=None,
        change=lambda: policy.adapters.deltas(None, None),
        seed=0,
    )
    config = PerturbationConfig(directions=3, norms=(0.5, 1), examples=4)
    [measured] = perturbation.build(config)(snapshot)
    assert isinstance(measured, Measured)
    return list(measured.figures), dict(measured.numbers)


def test_figures_are_means_over_directions_with_their_interval(moved: Policy, task: Task) -> None:
    metrics, numbers = figures(moved, task)
    assert [metric.name for metric in metrics] == ["loss_at_0", "loss_at_0.5", "loss_at_1"]
    assert sorted(numbers) == [
        f"loss_at_{n}/{end}" for n in ("0.5", "1") for end in ("high", "low")
    ]
    for metric in metrics[1:]:
        assert metric.value is not None
        assert numbers[f"{metric.name}/low"] < metric.value < numbers[f"{metric.name}/high"]


def test_a_change_of_zeros_has_no_direction_and_says_so(policy: Policy, task: Task) -> None:
    metrics, numbers = figures(policy, task)
    assert metrics[0].value is not None
    assert [(m.value, m.reason) for m in metrics[1:]] == [(None, "the change is zero")] * 2
    assert numbers == {}


def test_the_price_is_an_edit_and_a_pass_for_each_direction_at_each_norm() -> None:
    size = RowSize(1, tests=(8,), visited=(8,))
    smallest = PerturbationConfig(directions=1, norms=(1.0,)).price(size).extra
    assert PerturbationConfig().price(size).extra == smallest / 2 * (20 * 3 + 1)
    assert PerturbationConfig().price(RowSize(0, (8,), ())).extra == 0
