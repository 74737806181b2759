"""Exact divergences of two predictions, held against hand values, TRL and autograd."""

import os
from typing import Literal

import pytest
import torch
from torch import Tensor

from fastslow.policy.divergence import divergences
from fastslow.policy.engine.layouts import Predictions

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # its functions may change: that is tested
from trl.experimental.sdft.loss_utils import (
    compute_full_logit_self_distillation_loss,
)

Which = Literal["reverse", "forward"]


def logits_of(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


@pytest.mark.parametrize(("which", "value"), [("reverse", 0.085123), ("forward", 0.092033)])
def test_the_vectors_of_two_distributions(which: Which, value: float) -> None:
    student = Predictions(logits_of((0.7, 0.2, 0.1)), ((0,),), None)
    teacher = Predictions(logits_of((0.5, 0.3, 0.2)), ((0,),), None)
    assert divergences(student, teacher, which).tolist() == [[pytest.approx(value, abs=5e-7)]]


def pair(*, bias: bool, dtype: torch.dtype) -> tuple[Predictions, Predictions]:
    """Three ragged rows, whose students share a position and whose teachers share another."""
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Linear(6, 300, bias=bias).to(dtype)
    for parameter in head.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=dtype)
        parameter.requires_grad_(False)
    states = torch.randn(5, 6, generator=generator, dtype=dtype).requires_grad_()
    others = torch.randn(6, 6, generator=generator, dtype=dtype)
    student = Predictions(states, ((0, 1), (0, 2, 3), (4,)), head)
    teacher = Predictions(others, ((0, 1), (2, 3, 4), (5,)), head)
    return student, teacher


@pytest.mark.parametrize("chunk", [128, 2])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("which", "alpha"), [("reverse", 1.0), ("forward", 0.0)])
def test_value_and_gradient_are_those_of_trl(
    which: Which, alpha: float, bias: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastslow.policy.divergence.CHUNK_NODES", chunk)
    student, teacher = pair(bias=bias, dtype=torch.float32)
    ours = divergences(student, teacher, which)
    assert student.head is not None
    width = ours.shape[1]
    padded = [[*row, *[0] * (width - len(row))] for row in student.nodes]
    padded_teacher = [[*row, *[0] * (width - len(row))] for row in teacher.nodes]
    mask = torch.tensor([[n < len(row) for n in range(width)] for row in student.nodes])
    theirs = compute_full_logit_self_distillation_loss(
        student.head(student.states[torch.tensor(padded)]),
        student.head(teacher.states[torch.tensor(padded_teacher)]),
        distillation_alpha=alpha,
    )
    torch.testing.assert_close(ours[mask], theirs[mask], rtol=1e-6, atol=1e-6)
    assert ours[~mask].tolist() == [0.0] * int((~mask).sum())
    weights = torch.linspace(0.5, 2, int(mask.sum()))
    [gradient] = torch.autograd.grad((ours[mask] * weights).sum(), student.states)
    [expected] = torch.autograd.grad((theirs[mask] * weights).sum(), student.states)
    assert float((gradient - expected).norm() / expected.norm()) < 1e-5  # of float32
    assert float(expected.norm()) > 0.1


@pytest.mark.parametrize("which", ["reverse", "forward"])
def test_the_gradient_passes_a_numerical_check(which: Which) -> None:
    student, teacher = pair(bias=True, dtype=torch.float64)

    def value(states: Tensor) -> Tensor:
        return divergences(Predictions(states, student.nodes, student.head), teacher, which)

    assert torch.autograd.gradcheck(value, (student.states,))


def test_equal_predictions_are_exactly_zero_apart() -> None:
    student, _ = pair(bias=False, dtype=torch.float32)
    same = Predictions(student.states.detach(), student.nodes, student.head)
    values = divergences(student, same, "reverse")
    assert float(values.detach().abs().max()) == 0.0
