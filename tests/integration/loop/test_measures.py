"""Drift, activations and updates measured on a tiny real model, without leaving a trace on it."""

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import pytest
import torch

from fastslow.core.prompts import PromptProgram
from fastslow.core.seeds import derive_seed
from fastslow.core.types import Sampling
from fastslow.measure.model.drift import (
    DriftInputs,
    DriftPair,
    draw,
    drift_on,
    kl_fst,
    kl_system,
    task_inputs,
    token_mean,
)
from fastslow.measure.model.geometry import measure_geometry
from fastslow.measure.model.neutral import (
    NEUTRAL_PASSAGES,
    neutral_cross_entropy,
    neutral_ids,
    neutral_inputs,
    read_neutral,
)
from fastslow.policy.activations import record_activations, unit_layers
from fastslow.policy.adapter.deltas import weight_deltas
from fastslow.policy.adapter.lora import adapter_tensors
from fastslow.policy.adapter.parts import freeze_trained
from fastslow.policy.policy import Policy, load_policy, seed_program, with_adapter
from fastslow.task.definition import Task
from tests.support.tiny import tiny_model, tiny_tokenizer

EVOLVED = PromptProgram("Write the letter that comes next, and nothing else.")


def drift(policy: Policy, *inputs: DriftInputs, seed: int = 0) -> list[DriftPair]:
    """Both directions on each of `inputs`, all in one go; tuned and base draw with one seed."""
    seeds = [seed] * len(inputs)
    drawn = [
        [[completion.token_ids for completion in found] for found in sides]
        for sides in (
            draw(policy.sampler, inputs, seeds, adapter=True),
            draw(policy.sampler, inputs, seeds, adapter=False),
        )
    ]
    return drift_on(policy.scorer, inputs, *drawn)


def system_kl(policy: Policy, task: Task, program: PromptProgram) -> float:
    """`kl_system` of three inputs."""
    ours, theirs = (
        task_inputs(policy, task, text, task.test[:3]) for text in (program, seed_program(task))
    )
    [found] = kl_system(policy.scorer, draw(policy.sampler, [ours], [0], adapter=True), [theirs])
    return found.value


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
    [pair] = drift(policy, task_inputs(policy, task, EVOLVED, task.test[:3]))
    assert abs(pair.kl_fst.value) < 1e-9
    assert abs(pair.kl_razor.value) < 1e-9
    assert pair.entropy == pair.entropy_base
    on, off = (read_neutral(policy, adapter=adapter).logprobs for adapter in (True, False))
    assert on == off


def test_both_directions_have_their_own_values_with_and_without_text(
    moved: Policy, task: Task
) -> None:
    texts = (EVOLVED, seed_program(task))
    inputs = [task_inputs(moved, task, text, task.test[:4]) for text in texts]
    with left_alone(moved):
        pairs = drift(moved, *inputs)
    values = [d.value for pair in pairs for d in (pair.kl_fst, pair.kl_razor)]
    assert len({round(value, 6) for value in values}) == 4
    assert min(values) > 1e-4
    kl = kl_fst(moved, task, EVOLVED, task.test[:4], 0)
    assert kl.tokens == pairs[0].kl_fst.tokens
    assert kl.value == pytest.approx(pairs[0].kl_fst.value, abs=1e-6)
    assert kl.se is not None
    for pair in pairs:
        assert 0 < pair.entropy.value < math.log(len(moved.tokenizer))


def test_inputs_measured_together_have_the_values_they_have_alone(
    moved: Policy, task: Task
) -> None:
    prose = neutral_inputs(moved, 3)
    inputs = [task_inputs(moved, task, EVOLVED, task.test[:4]), prose]
    assert prose.max_tokens != inputs[0].max_tokens
    together = drift(moved, *inputs)
    for one, pair in zip(inputs, together, strict=True):
        [alone] = drift(moved, one)
        for name in ("kl_fst", "kl_razor", "entropy", "entropy_base"):
            found, expected = getattr(pair, name), getattr(alone, name)
            assert found.tokens == expected.tokens
            assert found.value == pytest.approx(expected.value, abs=1e-6)


def test_the_reverse_direction_is_the_hand_value_at_tokens_the_base_draws(moved: Policy) -> None:
    prompt = neutral_inputs(moved, 1).prompts[0][:20]
    [pair] = drift(moved, DriftInputs((prompt,), 3), seed=5)
    measured = pair.kl_razor
    with moved.scorer.base_weights():
        fresh = Policy(moved.model, moved.tokenizer).sampler
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
    moved.sampler.sample(prompts, sampling, seeds)
    base = load_policy(str(tiny_folder)).sampler.sample(prompts, sampling, seeds)
    drawn = moved.sampler.sample(prompts, sampling, seeds, adapter=False)
    assert [c.token_ids for c in drawn] == [c.token_ids for c in base]


def test_the_system_divergence_sees_the_text_even_where_no_weight_has_moved(
    policy: Policy, task: Task
) -> None:
    assert abs(system_kl(policy, task, seed_program(task))) < 1e-6
    assert system_kl(policy, task, EVOLVED) > 1e-5


def test_neutral_passages_are_scored_with_the_adapter_on_and_off(moved: Policy) -> None:
    with left_alone(moved):
        on, off = (read_neutral(moved, NEUTRAL_PASSAGES[:3], adapter=a) for a in (True, False))
    scored = neutral_cross_entropy(on.logprobs, off.logprobs)
    rows = neutral_ids(moved, NEUTRAL_PASSAGES[:3])
    assert scored.delta.tokens == sum(len(row) - 1 for row in rows)
    assert scored.delta.value == pytest.approx(scored.tuned.value - scored.base.value)
    assert abs(scored.delta.value) > 1e-3
    ids = torch.tensor([rows[0]])
    loss = float(moved.model(input_ids=ids, labels=ids).loss.detach())
    assert -fmean(on.logprobs[0]) == pytest.approx(loss, abs=1e-4)
    first, rest = [row[:1] for row in rows], [row[1:] for row in rows]
    for passes, adapter in ((on, True), (off, False)):
        plain = moved.scorer.logprobs(first, rest, adapter=adapter)
        for row, expected in zip(passes.logprobs, plain, strict=True):
            assert row == pytest.approx(expected, abs=1e-4)


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
    assert [states.shape for states in recorded.features] == [(4, 32), (1, 32), (2, 32)]
    halves = [record_activations(policy.model, part) for part in (rows[:1], rows[1:])]
    joined = halves[0].joined(halves[1])
    assert joined.samples == 7
    layer_name = "model.layers.0.mlp.down_proj"
    assert joined.mean_abs[layer_name] == pytest.approx(recorded.mean_abs[layer_name], abs=1e-6)
    assert joined.singular_values() == pytest.approx(recorded.singular_values(), abs=1e-4)

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
    assert recorded.mean_square["model.layers.1.mlp.down_proj"] == pytest.approx(
        units.square().mean(0).tolist(), abs=1e-6
    )
    assert joined.mean_square[layer_name] == pytest.approx(
        recorded.mean_square[layer_name], abs=1e-6
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
