"""Energies at the units of a tiny real model, and the bridge on them."""

import pytest
import torch

from fastslow.core.types import Example
from fastslow.measure.model.bridge import (
    FIGURES,
    PROPERTIES,
    _metrics,
    measure_bridge,
    rotated,
)
from fastslow.policy.policy import Policy, seed_program, with_adapter
from fastslow.task.definition import Task
from tests.support.tiny import tiny_model, tiny_tokenizer

LAYERS = [f"model.layers.{index}.mlp.down_proj" for index in range(2)]


def adapted(family: str) -> Policy:
    base = Policy(tiny_model(family), tiny_tokenizer())
    return with_adapter(base, rank=2, alpha=4, target_modules="all-linear", seed=0)


def test_gradient_energies_are_those_of_a_plain_backward_pass(moved: Policy, task: Task) -> None:
    prompts = [moved.renderer.prompt_ids(seed_program(task), e.question) for e in task.test[:2]]
    answers = [moved.renderer.answer_ids(example.answer) for example in task.test[:2]]
    with moved.scorer.base_weights():
        rows, columns = moved.feed_forward.gradient_energies(prompts, answers)
    assert list(rows) == list(columns) == LAYERS
    assert not any(p.grad is not None for p in moved.model.parameters())
    trainable = {name for name, p in moved.model.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in trainable)

    plain = tiny_model()  # the base of `moved`: built from the same seed
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = torch.tensor([[*prompt, *answer]])
        logprobs = torch.log_softmax(plain(input_ids=ids).logits[0], -1)
        targets = torch.tensor(answer)
        places = torch.arange(len(prompt) - 1, len(prompt) - 1 + len(answer))
        torch.autograd.backward(-logprobs[places, targets].sum() / 2)
    block = plain.model.layers[1].mlp
    by_hand = block.gate_proj.weight.grad.square().sum(1) + block.up_proj.weight.grad.square().sum(
        1
    )
    assert rows[LAYERS[1]] == pytest.approx(by_hand.tolist(), rel=1e-3)
    by_hand = block.down_proj.weight.grad.square().sum(0)
    assert columns[LAYERS[1]] == pytest.approx(by_hand.tolist(), rel=1e-3)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False")
@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
def test_rows_of_a_change_are_found_under_any_names_of_the_modules(family: str) -> None:
    policy = adapted(family)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(generator=torch.Generator().manual_seed(len(name)))
    deltas = list(policy.adapters.deltas(None, None))
    energies = policy.feed_forward.row_energies(deltas)
    assert len(energies) == 2
    written = [d for d in deltas if any(n in d.name for n in ("gate", "up_proj", "c_fc"))]
    total = sum(float(delta.dense().square().sum()) for delta in written)
    units = policy.activations([(5, 6, 7)]).mean_abs
    assert {layer: len(values) for layer, values in energies.items()} == {
        layer: len(values) for layer, values in units.items()
    }
    assert sum(map(sum, energies.values())) == pytest.approx(total, rel=1e-4)


def test_a_bridge_has_every_figure_and_leaves_the_policy_as_it_is(
    moved: Policy, task: Task
) -> None:
    examples = [
        Example(f"e{index}", f"question {index}", answer) for index, answer in enumerate("aabbc")
    ]
    weights = {name: p.detach().clone() for name, p in moved.model.named_parameters()}
    correlations = measure_bridge(
        moved, seed_program(task), examples, lambda: moved.adapters.deltas(None, None), 99, 0
    )
    assert set(correlations) == {figure + end for figure in FIGURES for end in PROPERTIES}
    for ending in PROPERTIES:
        bridge, gradient, control = (
            correlations[name + ending] for name in ("bridge", "gradient", "control")
        )
        assert bridge.mean == pytest.approx(gradient.mean - control.mean)
        assert len(bridge.layers) == 2
        assert bridge.mean != 0
    assert all(torch.equal(p, weights[name]) for name, p in moved.model.named_parameters())
    again = measure_bridge(moved, seed_program(task), examples, None, 99, 0)
    assert again["bridge"] == correlations["bridge"]
    assert "change" not in again


def test_energy_planted_at_quiet_units_is_seen_in_the_change(moved: Policy, task: Task) -> None:
    from fastslow.policy.adapter.deltas import WeightDelta

    prompts = [moved.renderer.prompt_ids(seed_program(task), e.question) for e in task.validation]
    activity = moved.activations(prompts, adapter=False)
    sparse = {
        layer: [1 - a**2 / s for a, s in zip(activity.mean_abs[layer], square, strict=True)]
        for layer, square in activity.mean_square.items()
    }

    def deltas() -> list[WeightDelta]:
        return [
            WeightDelta(
                layer.replace("down", "up"),
                torch.zeros(64, 32),
                torch.tensor(sparseness).float()[:, None],
                torch.ones(1, 32),
            )
            for layer, sparseness in sparse.items()
        ]

    correlations = measure_bridge(moved, seed_program(task), task.validation, deltas, 99, 0)
    assert correlations["change"].mean > 0.95
    assert correlations["change"].p_value == 0.01


def test_rotated_answers_all_differ_where_they_can() -> None:
    answers = list("abacbabbaacc")
    assert sorted(rotated(answers)) == sorted(answers)
    assert all(a != b for a, b in zip(answers, rotated(answers), strict=True))
    mostly = list("aaaab")
    assert sorted(rotated(mostly)) == sorted(mostly)
    assert rotated(["a"]) == ["a"]


def test_a_model_without_units_and_answers_that_are_all_the_same_have_reasons(
    policy: Policy, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = measure_bridge(policy, seed_program(task), task.validation, None, 9, 0)
    assert "gradient" in same
    assert "bridge" not in same
    reasons = {metric.name: metric.reason for metric in _metrics(same)}
    assert reasons["bridge"] == "all gold answers are the same: none can be rotated"
    assert reasons["change"] == "the stage changed no rows of gate and up"
    assert reasons["gradient"] is None
    monkeypatch.setattr("fastslow.policy.feed_forward.unit_layers", lambda model: [])
    assert measure_bridge(policy, seed_program(task), task.validation, None, 9, 0) == {}
    assert {metric.reason for metric in _metrics({})} == {
        "the model has no feed-forward blocks of linear modules"
    }
