"""What parts of a change keep of its gain, on a tiny real model whose base must come back."""

from collections.abc import Iterator

import pytest
import torch

from fastslow.core.errors import EvaluationError
from fastslow.measure.model.keep_curve import (
    ARMS,
    KeepCurve,
    gains_kept,
    measure_keep_curve,
)
from fastslow.measure.model.magnitudes import Deltas
from fastslow.policy.adapter.deltas import WeightDelta
from fastslow.policy.adapter.intervening import base_changed_by
from fastslow.policy.policy import Policy, seed_program
from fastslow.task.definition import Task

MATRIX = "model.layers.1.mlp.down_proj"


def base_weights(policy: Policy) -> dict[str, torch.Tensor]:
    """A copy of every weight."""
    return {name: p.detach().clone() for name, p in policy.model.named_parameters()}


def descent(policy: Policy, task: Task, size: float, *, equal: bool, rows: slice) -> Deltas:
    """A step down the gradient of the gold answers in some rows of one matrix."""
    weight = policy.model.get_base_model().get_submodule(MATRIX).get_base_layer().weight
    prompts = [policy.renderer.prompt_ids(seed_program(task), e.question) for e in task.validation]
    answers = [policy.renderer.answer_ids(e.answer) for e in task.validation]
    weight.requires_grad_(True)
    with policy.scorer.base_weights():
        loss = -policy.completion_logprobs(prompts, answers).sum()
    [gradient] = torch.autograd.grad(loss, [weight])
    weight.requires_grad_(False)
    change = torch.zeros_like(gradient)
    change[rows] = -(gradient.sign() if equal else gradient / gradient.abs().max())[rows] * size
    return lambda: iter([WeightDelta(MATRIX, weight.detach(), change, torch.eye(change.shape[1]))])


def curve(policy: Policy, task: Task, deltas: Deltas, *shares: float) -> KeepCurve:
    before = base_weights(policy)
    measured = measure_keep_curve(policy, seed_program(task), task.validation, deltas, shares, 3)
    after = base_weights(policy)
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    return measured


def test_a_change_of_a_row_is_kept_by_its_entries_and_by_few_random_ones(
    moved: Policy, task: Task
) -> None:
    deltas = descent(moved, task, 1e-2, equal=False, rows=slice(4, 5))
    # a row of 32 holds 1/32 of the entries of its matrix
    kept = curve(moved, task, deltas, 1 / 32).gains
    assert kept["keep_top3.125"] == pytest.approx(1, abs=1e-3)
    assert kept["keep_rest3.125"] == pytest.approx(0, abs=1e-3)
    assert abs(kept["keep_random3.125"]) < 0.2
    assert kept["keep_random_energy3.125"] == pytest.approx(1, abs=1e-3)


def test_parts_of_a_change_of_equal_entries_keep_their_share(moved: Policy, task: Task) -> None:
    deltas = descent(moved, task, 1e-5, equal=True, rows=slice(None))
    measured = curve(moved, task, deltas, 0.25)
    assert measured.energies["top25"] == pytest.approx(0.25, abs=1e-3)
    for arm in ("top", "random", "random_energy"):
        assert measured.gains[f"keep_{arm}25"] == pytest.approx(0.25, abs=0.06)
    assert measured.gains["keep_rest25"] == pytest.approx(0.75, abs=0.06)
    assert measured.gains["keep_scaled25"] == pytest.approx(0.5, abs=0.01)
    assert measured.intervals.keys() == measured.gains.keys()


def test_the_whole_change_is_what_the_adapter_computes(moved: Policy, task: Task) -> None:
    prompts = [moved.renderer.prompt_ids(seed_program(task), e.question) for e in task.validation]
    answers = [moved.renderer.answer_ids(example.answer) for example in task.validation]
    adapted = [-sum(row) for row in moved.scorer.logprobs(prompts, answers)]
    measured = curve(moved, task, lambda: moved.adapters.deltas(None, None), 0.5)
    assert measured.losses["change"] == pytest.approx(adapted, abs=1e-3)
    assert measured.losses["base"] != pytest.approx(adapted, abs=1e-2)
    assert len(measured.losses) == 2 + len(ARMS)


def test_a_change_that_does_not_lower_the_loss_keeps_nothing(moved: Policy, task: Task) -> None:
    deltas = descent(moved, task, -1e-2, equal=True, rows=slice(None))
    measured = curve(moved, task, deltas, 0.1)
    assert (measured.gains, measured.intervals) == ({}, {})


def test_the_base_comes_back_after_an_exception_and_a_base_that_does_not_is_reported(
    moved: Policy,
) -> None:
    before = base_weights(moved)

    def broken(name: str, change: torch.Tensor) -> torch.Tensor:
        if "layers.1" in name:
            raise KeyboardInterrupt
        return change

    with (
        pytest.raises(KeyboardInterrupt),
        base_changed_by(moved.adapters.deltas(None, None), broken),
    ):
        pass

    def interrupted() -> None:
        with base_changed_by(moved.adapters.deltas(None, None), lambda _, change: change):
            assert any(not torch.equal(p, before[n]) for n, p in moved.model.named_parameters())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        interrupted()
    assert all(torch.equal(p, before[name]) for name, p in moved.model.named_parameters())

    class Stubborn(torch.Tensor):
        """A weight that cannot be written back."""

        def copy_(self, *_: object) -> "Stubborn":
            return self

    weight = torch.ones(2, 2).as_subclass(Stubborn)

    def deltas() -> Iterator[WeightDelta]:
        yield WeightDelta("m", weight, torch.ones(2, 1), torch.ones(1, 2))

    with (
        pytest.raises(EvaluationError, match=r"1 weights of the base are not .* e\.g\. m\."),
        base_changed_by(deltas(), lambda _, change: change),
    ):
        pass


def test_gains_are_compared_at_equal_energy() -> None:
    losses = {
        "base": (2.0, 4.0),
        "change": (1.0, 1.0),
        "top5": (1.0, 2.0),
        "random_energy5": (1.5, 3.0),
        "scaled5": (1.25, 1.0),
    }
    kept = gains_kept(losses, [0, 1])
    assert kept["keep_top5"] == 0.75
    assert kept["keep_top5_minus_random_energy"] == pytest.approx(0.375)
    assert kept["keep_top5_minus_scaled"] == pytest.approx(-0.1875)
    assert gains_kept(losses, [0, 0])["keep_top5"] == 1
