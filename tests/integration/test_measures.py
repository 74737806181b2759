"""Drift, activations and updates measured on a tiny real model, without leaving a trace on it."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from fastslow.measure.drift import (
    drift_on,
    drift_with_and_without_text,
    kl_fst,
    kl_system,
    token_mean,
)
from fastslow.measure.geometry import measure_geometry
from fastslow.measure.neutral import (
    NEUTRAL_PASSAGES,
    neutral_cross_entropy,
    neutral_ids,
    neutral_prompts,
)
from fastslow.policy.activations import record_activations, unit_layers
from fastslow.policy.adapters import adapter_tensors
from fastslow.policy.lora_parts import freeze_trained
from fastslow.policy.policy import Policy, load_policy, seed_program, with_adapter
from fastslow.policy.weight_deltas import weight_deltas
from fastslow.prompts import PromptProgram
from fastslow.seeds import derive_seed
from fastslow.task import Task
from fastslow.types import Sampling
from tests.tiny import tiny_model, tiny_tokenizer

EVOLVED = PromptProgram("Write the letter that comes next, and nothing else.")


@contextmanager
def left_alone(policy: Policy) -> Iterator[None]:
    """Fails if weights, generators, mode or hooks are not what they were."""
    state, python, weights = torch.get_rng_state(), random.getstate(), policy.weights_fingerprint()
    policy.model.train()
    yield
    assert policy.model.training
    policy.model.eval()
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python
    assert policy.weights_fingerprint() == weights
    assert not any(module._forward_pre_hooks for module in policy.model.modules())


def test_a_fresh_adapter_has_not_drifted_anywhere(policy: Policy, task: Task) -> None:
    pair = drift_with_and_without_text(policy, task, EVOLVED, task.test[:3], 0)["with_text"]
    assert abs(pair.kl_fst.value) < 1e-9
    assert abs(pair.kl_razor.value) < 1e-9
    assert pair.entropy == pair.entropy_base
    assert neutral_cross_entropy(policy).delta.value == pytest.approx(0, abs=1e-6)


def test_both_directions_have_their_own_values_with_and_without_text(
    moved: Policy, task: Task
) -> None:
    with left_alone(moved):
        pairs = drift_with_and_without_text(moved, task, EVOLVED, task.test[:4], 0)
    assert list(pairs) == ["with_text", "without_text"]
    values = [d.value for pair in pairs.values() for d in (pair.kl_fst, pair.kl_razor)]
    assert len({round(value, 6) for value in values}) == 4
    assert min(values) > 1e-4
    kl = kl_fst(moved, task, EVOLVED, task.test[:4], 0)
    assert kl == pairs["with_text"].kl_fst
    assert kl.se is not None
    for pair in pairs.values():
        assert 0 < pair.entropy.value < math.log(len(moved.tokenizer))
    same = drift_with_and_without_text(moved, task, seed_program(task), task.test[:4], 0)
    assert same["with_text"] == same["without_text"] == pairs["without_text"]


def test_the_reverse_direction_is_the_hand_value_at_tokens_the_base_draws(moved: Policy) -> None:
    prompt = neutral_prompts(moved)[0][:20]
    measured = drift_on(moved.engine, [prompt], 3, seed=5).kl_razor
    with moved.engine.base_weights():
        fresh = Policy(moved.model, moved.tokenizer).engine
        seeds = [derive_seed(5, "kl", 0)]
        [drawn] = fresh.sample([prompt], Sampling(3, 1.0), seeds)
        ids = torch.tensor([prompt + drawn.token_ids])
        q = torch.log_softmax(moved.model(input_ids=ids).logits[0].double(), -1)
    p = torch.log_softmax(moved.model(input_ids=ids).logits[0].double(), -1)
    expected = (q.exp() * (q - p)).detach().sum(-1)[len(prompt) - 1 : -1].mean()
    assert measured.value == pytest.approx(float(expected), abs=1e-6)
    assert measured.tokens == len(drawn.token_ids)


def test_the_base_draws_what_it_draws_alone_after_the_tuned_policy_has_drawn(
    moved: Policy, tiny_folder: Path
) -> None:
    prompts = [moved.renderer.prompt_ids(EVOLVED, question) for question in ("a", "b", "c")]
    sampling, seeds = Sampling(6, 1.0), [1, 2, 3]
    moved.engine.sample(prompts, sampling, seeds)
    base = load_policy(str(tiny_folder)).engine.sample(prompts, sampling, seeds)
    drawn = moved.engine.sample(prompts, sampling, seeds, adapter=False)
    assert [c.token_ids for c in drawn] == [c.token_ids for c in base]


def test_the_system_divergence_sees_the_text_even_where_no_weight_has_moved(
    policy: Policy, task: Task
) -> None:
    unchanged = kl_system(policy, task, seed_program(task), task.test[:3], 0)
    assert abs(unchanged.value) < 1e-6
    assert kl_system(policy, task, EVOLVED, task.test[:3], 0).value > 1e-5


def test_neutral_passages_are_scored_with_the_adapter_on_and_off(moved: Policy) -> None:
    with left_alone(moved):
        scored = neutral_cross_entropy(moved, NEUTRAL_PASSAGES[:3])
    rows = neutral_ids(moved, NEUTRAL_PASSAGES[:3])
    assert scored.delta.tokens == sum(len(row) - 1 for row in rows)
    assert scored.delta.value == pytest.approx(scored.tuned.value - scored.base.value)
    assert abs(scored.delta.value) > 1e-3
    ids = torch.tensor([rows[0]])
    loss = float(moved.model(input_ids=ids, labels=ids).loss.detach())
    first = neutral_cross_entropy(moved, NEUTRAL_PASSAGES[:1])
    assert first.tuned.value == pytest.approx(loss, abs=1e-4)


def test_the_neutral_passages_are_many_and_distinct() -> None:
    assert len(set(NEUTRAL_PASSAGES)) == len(NEUTRAL_PASSAGES) >= 16
    assert all(30 <= len(passage.split()) <= 70 for passage in NEUTRAL_PASSAGES)


def test_a_mean_over_tokens_weighs_tokens_and_its_error_counts_rows() -> None:
    mean = token_mean([(1.0, 1.0, 1.0), (0.0,)])
    assert (mean.value, mean.tokens) == (0.75, 4)
    assert mean.se == pytest.approx(math.sqrt(2 * 2 * 0.75**2) / 4)
    assert token_mean([(1.0, 2.0)]).se is None


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma"])
def test_activations_are_those_of_single_rows(family: str) -> None:
    policy = with_adapter(
        Policy(tiny_model(family), tiny_tokenizer()),
        rank=2,
        alpha=4,
        target_modules="all-linear",
        seed=0,
    )
    rows = [(5, 6, 7, 8), (9,), (10, 11)]
    with left_alone(policy):
        recorded = record_activations(policy.model, rows)
    assert list(recorded.mean_abs) == [f"model.layers.{i}.mlp.down_proj" for i in range(2)]
    assert recorded.samples == 7
    assert recorded.features.shape == (7, 32)

    seen: list[torch.Tensor] = []
    layer = policy.model.get_submodule(unit_layers(policy.model)[1])
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    with torch.no_grad():
        for row in rows:
            policy.model(input_ids=torch.tensor([row]))
    handle.remove()
    units = torch.cat(seen)
    assert recorded.mean_abs["model.layers.1.mlp.down_proj"] == pytest.approx(
        units.abs().mean(0).tolist(), abs=1e-6
    )
    assert recorded.active_share["model.layers.1.mlp.down_proj"] == pytest.approx(
        (units > 0).float().mean(0).tolist(), abs=1e-6
    )
    assert len(recorded.singular_values()) == 7


def test_weight_deltas_are_what_merging_adds(moved: Policy) -> None:
    before = {name: t.clone() for name, t in adapter_tensors(moved.model).items()}
    deltas = list(weight_deltas(moved.model, before))
    names = {name for name, _ in moved.model.get_base_model().named_modules()}
    assert len(deltas) == 14
    for delta in deltas:
        assert delta.name in names
        layer = moved.model.get_base_model().get_submodule(delta.name)
        torch.testing.assert_close(delta.dense(), layer.get_delta_weight("default"))
    geometry = measure_geometry(lambda: weight_deltas(moved.model, before))
    assert all(m.value is not None for m in geometry.metrics.values())
    assert geometry.num_weights == sum(delta.base.numel() for delta in deltas)


def test_a_stage_that_changed_nothing_has_no_delta_even_where_ranks_were_frozen_under_it(
    moved: Policy,
) -> None:
    start = {name: t.clone() for name, t in adapter_tensors(moved.model).items()}
    freeze_trained(moved.model, seed=2)
    after = adapter_tensors(moved.model)
    for delta in weight_deltas(moved.model, after, start):
        assert float(delta.dense().abs().max()) < 1e-6
    whole = [delta.dense() for delta in weight_deltas(moved.model, after)]
    for delta, plain in zip(weight_deltas(moved.model, start), whole, strict=True):
        torch.testing.assert_close(delta.dense(), plain)
