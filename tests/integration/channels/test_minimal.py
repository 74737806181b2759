"""Small changes of the weights, on a tiny model: budget, shrinking, placement, adapter policies."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fastslow.channels.slow.channel import SlowChannel
from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.channels.slow.minimal import FACTORS, KlBudget, shrink
from fastslow.channels.slow.sft import GoldTrainer
from fastslow.config import ledger
from fastslow.core.errors import ChannelError, CheckpointError, ModelError
from fastslow.core.prompts import PromptProgram
from fastslow.core.types import Anchor
from fastslow.policy.adapter.by_stage import AdapterPolicy
from fastslow.policy.adapter.lora import adapter_tensors, load_adapter, save_adapter, verify_adapter
from fastslow.policy.adapter.parts import (
    copied_weights,
    freeze_trained,
    frozen_rank,
    put_weights,
    scale_weights,
    start_fresh,
    trainable_weights,
)
from fastslow.policy.policy import Policy, load_policy, with_adapter
from fastslow.task.definition import Task
from tests.integration.channels.test_channels import GRPO, silent, two_texts
from tests.integration.channels.test_sft import SFT

TEXT = PromptProgram("Write letters.")
IDS = torch.tensor([[7, 3, 9, 120, 11, 42]])


def fresh(folder: Path, seed: int = 9) -> Policy:
    base = load_policy(str(folder))
    return with_adapter(base, rank=4, alpha=8, target_modules="all-linear", seed=seed)


def move(policy: Policy, seed: int, size: float = 0.2) -> None:
    """Fill the trainable part's zero half with noise, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in trainable_weights(policy.model).items():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * size)


def logits(policy: Policy) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = policy.model(input_ids=IDS).logits
    return found


def base_logits(policy: Policy) -> torch.Tensor:
    with policy.engine.base_weights():
        return logits(policy)


def begin(policy: Policy, task: str, how: AdapterPolicy, seed: int = 5) -> None:
    policy.adapters.begin(task, how, seed, trains=True, keep_start=True)


def all_updates(policy: Policy, task: Task, anchors: list[Anchor], channel: SlowChannel) -> Any:
    return [channel.adapt(policy, task, anchor, 1, silent) for anchor in anchors]


def test_a_stage_with_a_budget_ends_at_or_under_it_and_without_one_would_not(
    policy: Policy, task: Task, anchors: list[Anchor]
) -> None:
    two_texts(policy, task)
    start = copied_weights(policy.model)
    free = KlBudget(1e9, 8)
    unlimited = [a.metrics["kl_tuned_base"] for a in all_updates(
        policy, task, anchors, SlowChannel(GRPO, kl_budget=free)
    )]  # fmt: skip
    put_weights(policy.model, start)

    limit = (unlimited[0] + unlimited[-1]) / 2
    assert unlimited[0] < limit < unlimited[-1]
    channel = SlowChannel(GRPO, kl_budget=KlBudget(limit, 8))
    cycles = all_updates(policy, task, anchors, channel)
    assert channel.kl_budget is not None
    assert channel._trainer is not None
    rows = channel._trainer.scored_rows()
    assert channel.kl_budget.measure(policy, rows) == cycles[-1].metrics["kl_tuned_base"] <= limit
    assert cycles[-1].metrics["kl_budget_hit"] == 1.0
    assert cycles[0].metrics["kl_budget_hit"] == 0.0
    assert policy.weights_fingerprint() != fresh_fingerprint(policy, start)


def fresh_fingerprint(policy: Policy, start: dict[str, torch.Tensor]) -> str:
    """Fingerprint the policy had with those weights; they are put back."""
    now = copied_weights(policy.model)
    put_weights(policy.model, start)
    fingerprint = policy.weights_fingerprint()
    put_weights(policy.model, now)
    return fingerprint


def test_gold_answers_have_a_budget_too(policy: Policy, task: Task, anchors: list[Anchor]) -> None:
    begin(policy, task.name, "continue")
    budget = KlBudget(1e9, 8)
    channel = SlowChannel(SFT, GoldTrainer, budget)
    first = channel.adapt(policy, task, anchors[0], 1, silent)
    budget.limit = 1.5 * first.metrics["kl_tuned_base"]
    cycles = [channel.adapt(policy, task, anchor, 1, silent) for anchor in anchors[1:]]
    assert cycles[-1].metrics["kl_budget_hit"] == 1.0
    assert channel._trainer is not None
    assert budget.measure(policy, channel._trainer.scored_rows()) <= budget.limit


def test_an_update_over_budget_is_undone_with_its_moments_and_later_cycles_draw_nothing(
    policy: Policy, task: Task, anchors: list[Anchor]
) -> None:
    channel = SlowChannel(GRPO, kl_budget=KlBudget(1e9, 16))
    channel.adapt(policy, task, anchors[0], 1, silent)
    assert channel._optimizer is not None
    before = policy.weights_fingerprint()
    moments = [
        {name: value.clone() for name, value in state.items()}
        for state in channel._optimizer.state.values()
    ]
    assert channel.kl_budget is not None
    channel.kl_budget.limit = 1e-9
    second = channel.adapt(policy, task, anchors[1], 2, silent)
    assert second.metrics["kl_budget_hit"] == 1.0
    assert second.rollouts == 2 * 4  # one update of Q x G, not two
    assert policy.weights_fingerprint() == before
    for state, expected in zip(channel._optimizer.state.values(), moments, strict=True):
        for name, value in expected.items():
            assert torch.equal(state[name], value), name
    third = channel.adapt(policy, task, anchors[2], 3, silent)
    assert third.rollouts == 0
    assert third.metrics == {
        "kl_tuned_base": second.metrics["kl_tuned_base"],
        "kl_budget_hit": 1.0,
        "kl_budget_kept": 1.0,
    }
    assert policy.weights_fingerprint() == before

    next_stage = replace(anchors[0], stage=1)
    channel.kl_budget.limit = 1e9
    assert channel.adapt(policy, task, next_stage, 4, silent).rollouts == 2 * 2 * 4


@pytest.mark.parametrize(("share", "kept"), [(0.5, {0.9, 0.8, 0.7, 0.6, 0.5, 0.4}), (1e-9, {0.0})])
def test_a_stage_that_new_inputs_put_over_its_budget_goes_back_towards_its_start(
    policy: Policy, task: Task, anchors: list[Anchor], share: float, kept: set[float]
) -> None:
    begin(policy, task.name, "continue")
    start = policy.weights_fingerprint()
    budget = KlBudget(1e9, 8)
    channel = SlowChannel(GRPO, kl_budget=budget)
    first = channel.adapt(policy, task, anchors[0], 1, silent)
    budget.limit = share * first.metrics["kl_tuned_base"]
    second = channel.adapt(policy, task, anchors[1], 2, silent)
    assert second.metrics["kl_budget_kept"] in kept
    assert channel._trainer is not None
    assert budget.measure(policy, channel._trainer.scored_rows()) <= budget.limit
    assert (policy.weights_fingerprint() == start) == (kept == {0.0})


@pytest.mark.parametrize("first_is_undone", [False, True])
def test_a_budget_that_is_spent_stays_spent_after_loading(
    policy: Policy, task: Task, anchors: list[Anchor], tmp_path: Path, first_is_undone: bool
) -> None:
    channel = SlowChannel(GRPO, kl_budget=KlBudget(1e-9 if first_is_undone else 1e9, 16))
    assert channel.kl_budget is not None
    channel.adapt(policy, task, anchors[0], 1, silent)
    channel.kl_budget.limit = 1e-9
    hit = channel.adapt(policy, task, anchors[1], 2, silent)
    before = policy.weights_fingerprint()
    channel.save(tmp_path)
    again = SlowChannel(GRPO, kl_budget=KlBudget(1e-9, 16))
    again.load(tmp_path)
    (tmp_path / "twice").mkdir()
    again.save(tmp_path / "twice")  # before any update, as a stage without the slow channel does
    twice = SlowChannel(GRPO, kl_budget=KlBudget(1e-9, 16))
    twice.load(tmp_path / "twice")
    for loaded in (again, twice):
        cycle = loaded.adapt(policy, task, anchors[2], 3, silent)
        assert (cycle.rollouts, cycle.metrics) == (
            0,
            {
                "kl_tuned_base": hit.metrics["kl_tuned_base"],
                "kl_budget_hit": 1.0,
                "kl_budget_kept": 1.0,
            },
        )
    assert policy.weights_fingerprint() == before


def test_the_budget_is_measured_in_portions_as_in_one(
    moved: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(moved.renderer.prompt_ids(TEXT, q), (5, 6, 7)[: 1 + len(q) % 3]) for q in "abcdefgh"]
    whole = KlBudget(1.0, 5).measure(moved, rows)
    monkeypatch.setattr("fastslow.channels.slow.minimal.TOKENS_AT_ONCE", 3)
    assert KlBudget(1.0, 5).measure(moved, rows) == pytest.approx(whole, rel=1e-5)
    assert whole > 1e-4


def scored_by(policy: Policy, scores: dict[float, float], at_start: float) -> Any:
    """A score that depends on the factor the adapter is scaled by, which it reads off a weight."""
    name = next(n for n in trainable_weights(policy.model) if "lora_B" in n)
    full = float(copied_weights(policy.model)[name].norm())

    def validate() -> float:
        factor = round(float(trainable_weights(policy.model)[name].detach().norm()) / full, 4)
        return at_start if factor == 0 else scores[factor]

    return validate


@pytest.mark.parametrize(
    ("scores", "at_start", "share", "expected"),
    [
        ({1.0: 0.8, 0.9: 0.8, 0.8: 0.8, 0.7: 0.79, 0.6: 0.5}, 0.4, 0.95, 0.7),
        ({1.0: 0.8, 0.9: 0.8, 0.8: 0.5, 0.7: 0.8}, 0.4, 0.95, 0.9),  # 0.7 is a lone lucky point
        (dict.fromkeys([1.0, *FACTORS], 0.8), 0.4, 0.95, 0.1),
        ({1.0: 0.8, 0.9: 0.5}, 0.4, 0.95, 1.0),
        ({1.0: 0.8}, 0.8, 0.95, 1.0),
        ({1.0: 0.3}, 0.8, 0.95, 1.0),
    ],
)
def test_shrinking_takes_the_smallest_factor_down_to_which_the_share_is_kept(
    policy: Policy, scores: dict[float, float], at_start: float, share: float, expected: float
) -> None:
    begin(policy, "first", "continue")
    move(policy, 1)
    left = copied_weights(policy.model)
    found = shrink(policy, share, scored_by(policy, scores, at_start), dict)
    assert found.factor == expected
    assert (found.start, found.before, found.after) == (at_start, scores[1.0], scores[expected])
    assert (found.reason is None) == (expected < 1)
    for name, weight in trainable_weights(policy.model).items():
        scaled = left[name] * expected if "lora_B" in name else left[name]
        assert torch.equal(weight, scaled), name
    assert policy.adapters.start is None


def test_scaling_b_scales_the_update_of_the_weights_and_its_kl(moved: Policy) -> None:
    whole = copied_weights(moved.model)
    rows = [(moved.renderer.prompt_ids(TEXT, q), (5, 6)) for q in "abc"]
    kls = []
    for factor in (1.0, 0.5, 0.1):
        scale_weights(moved.model, whole, factor)
        kls.append(KlBudget(1.0, 3).measure(moved, rows))
    assert kls[0] > kls[1] > kls[2] > 0


def test_the_estimate_knows_how_many_factors_there_are() -> None:
    assert len(FACTORS) == ledger.SHRINK_FACTORS


@pytest.mark.parametrize("stages", [1, 2])
def test_merging_keeps_the_logits_and_the_base_and_trains_the_new_adapter_alone(
    moved: Policy, task: Task, anchors: list[Anchor], tiny_folder: Path, tmp_path: Path, stages: int
) -> None:
    untouched = logits(load_policy(str(tiny_folder)))
    begin(moved, "0", "merge-then-new")
    num_trainable = sum(p.requires_grad for p in moved.model.parameters())
    for stage in range(stages):
        move(moved, stage)
        before, fingerprint = logits(moved), moved.weights_fingerprint()
        begin(moved, str(stage + 1), "merge-then-new", seed=stage)
        torch.testing.assert_close(logits(moved), before, atol=1e-5, rtol=0)
        assert moved.weights_fingerprint() != fingerprint
    assert frozen_rank(moved.model) == 4 * stages
    assert torch.equal(base_logits(moved), untouched)
    assert sum(p.requires_grad for p in moved.model.parameters()) == num_trainable

    frozen = {n: b.clone() for n, b in moved.model.named_buffers() if ".earlier." in n}
    assert len(frozen) == num_trainable
    trained = copied_weights(moved.model)
    SlowChannel(GRPO).adapt(moved, task, anchors[0], 1, silent)
    assert sum(p.requires_grad for p in moved.model.parameters()) == num_trainable
    assert all(torch.equal(b, frozen[n]) for n, b in moved.model.named_buffers() if n in frozen)
    now = trainable_weights(moved.model)
    assert any(not torch.equal(now[name], value) for name, value in trained.items())

    moved.save(tmp_path / "kept")
    again = fresh(tiny_folder)
    again.load(tmp_path / "kept")
    assert again.weights_fingerprint() == moved.weights_fingerprint()
    assert frozen_rank(again.model) == 4 * stages
    assert torch.equal(logits(again), logits(moved))
    assert again.adapters.owner == str(stages)


def test_a_merged_adapter_is_one_plain_adapter_for_others(
    moved: Policy, tiny_folder: Path, tmp_path: Path
) -> None:
    from peft import PeftModel

    freeze_trained(moved.model, seed=3)
    move(moved, 8)
    save_adapter(moved.model, tmp_path)
    plain = PeftModel.from_pretrained(load_policy(str(tiny_folder)).model, tmp_path)
    assert plain.peft_config["default"].r == 8
    torch.testing.assert_close(plain(input_ids=IDS).logits, logits(moved), atol=1e-5, rtol=0)


def test_the_fingerprint_covers_the_frozen_part(moved: Policy) -> None:
    freeze_trained(moved.model, seed=3)
    before = moved.weights_fingerprint()
    next(b for n, b in moved.model.named_buffers() if ".earlier." in n).add_(1e-3)
    assert moved.weights_fingerprint() != before


def test_a_merged_adapter_loads_into_a_plain_one_and_back(
    moved: Policy, tiny_folder: Path, tmp_path: Path
) -> None:
    moved.save(tmp_path / "plain")
    plain = moved.weights_fingerprint()
    freeze_trained(moved.model, seed=3)
    moved.load(tmp_path / "plain")
    assert (moved.weights_fingerprint(), frozen_rank(moved.model)) == (plain, 0)


def test_each_stage_has_its_own_adapter_and_each_task_is_given_its_own(
    moved: Policy, tiny_folder: Path, tmp_path: Path
) -> None:
    begin(moved, "first", "new-per-stage")
    move(moved, 1)
    first = moved.weights_fingerprint()
    begin(moved, "second", "new-per-stage")
    assert torch.equal(logits(moved), base_logits(moved))
    move(moved, 2)
    second = moved.weights_fingerprint()
    moved.save(tmp_path / "kept")
    again = fresh(tiny_folder)
    again.load(tmp_path / "kept")
    for policy in (moved, again):
        found = {}
        for task in ("first", "second", "unseen"):
            with policy.adapters.of(task):
                found[task] = policy.weights_fingerprint()
        assert found == {"first": first, "second": second, "unseen": second}
        assert policy.weights_fingerprint() == second
    assert {p.name for p in (tmp_path / "kept" / "adapters").iterdir()} == {"first"}

    moved.adapters.begin("first", "new-per-stage", 1, trains=False, keep_start=False)
    assert moved.weights_fingerprint() == first  # texts alone are adapted, under its own weights
    begin(moved, "first", "new-per-stage")
    assert torch.equal(logits(moved), base_logits(moved))


def test_the_start_of_a_stage_is_saved_with_the_policy(
    moved: Policy, tiny_folder: Path, tmp_path: Path
) -> None:
    begin(moved, "first", "continue")
    start = copied_weights(moved.model)
    move(moved, 1)
    moved.save(tmp_path / "kept")
    again = fresh(tiny_folder)
    again.load(tmp_path / "kept")
    assert again.adapters.start is not None
    assert all(torch.equal(again.adapters.start[name], value) for name, value in start.items())


def test_last_third_puts_adapters_on_the_last_third_of_the_layers(tiny_folder: Path) -> None:
    def layers(modules: str | tuple[str, ...]) -> tuple[set[str], int]:
        policy = with_adapter(
            load_policy(str(tiny_folder)),
            rank=2,
            alpha=2,
            target_modules=modules,
            seed=0,
            placement="last_third",
        )
        names = [name.split(".layers.")[1] for name in adapter_tensors(policy.model)]
        return {name.split(".")[0] for name in names}, len(names)

    assert layers("all-linear") == ({"1"}, 14)  # of two layers, at least one
    assert layers(("q_proj", "v_proj")) == ({"1"}, 4)
    with pytest.raises(ModelError, match=r"slow\.lora\.placement: got 'last_third', but layers 1"):
        layers(("lm_head",))


def test_last_third_of_six_layers_is_two() -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from fastslow.policy.adapter.lora import attach_lora

    config = AutoConfig.for_model(
        "llama", vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=6,
        num_attention_heads=2, num_key_value_heads=2,
    )  # fmt: skip
    with torch.random.fork_rng():
        model = AutoModelForCausalLM.from_config(config)
        model = attach_lora(
            model, rank=2, alpha=2, target_modules="all-linear", seed=0, placement="last_third"
        )
    names = {name.split(".layers.")[1].split(".")[0] for name in adapter_tensors(model)}
    assert names == {"4", "5"}


def test_a_module_name_that_fits_nothing_is_refused_even_beside_one_that_fits(
    tiny_folder: Path,
) -> None:
    with pytest.raises(ModelError, match=r"got 'q_pro', which.*Did you mean 'q_proj'\?"):
        with_adapter(
            load_policy(str(tiny_folder)),
            rank=2,
            alpha=2,
            target_modules=("v_proj", "q_pro"),
            seed=0,
        )


def test_an_adapter_that_changes_no_logit_stops_the_run(
    policy: Policy, task: Task, anchors: list[Anchor]
) -> None:
    """Something sets the adapter back to zero after every step, as a broken wrapper would."""

    class Rezeroing(torch.optim.AdamW):
        def step(self, *args: Any, **kwargs: Any) -> Any:
            result = super().step(*args, **kwargs)
            start_fresh(policy.model, seed=0)
            return result

    channel = SlowChannel(GRPO)
    _, optimizer = channel._stage_parts(policy, task, anchors[0])
    channel._optimizer = Rezeroing(optimizer.param_groups)
    with pytest.raises(ChannelError, match="adapter changes no logit"):
        channel.adapt(policy, task, anchors[0], 1, silent)


def test_an_adapter_that_is_switched_off_stops_the_run(
    policy: Policy, task: Task, anchors: list[Anchor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It trains, and its weights change, but where the policy is scored it is never applied."""
    engine, inner = policy.engine, policy.engine.kl_to_base

    def switched_off(*rows: Any) -> Any:
        with engine.base_weights():
            return inner(*rows)

    monkeypatch.setattr(engine, "kl_to_base", switched_off)
    with pytest.raises(ChannelError, match="adapter changes no logit"):
        SlowChannel(GRPO).adapt(policy, task, anchors[0], 1, silent)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def test_a_truncated_adapter_file_is_named_by_saving_and_by_loading(
    moved: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_adapter(moved.model, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    cut_short(path)
    before = moved.weights_fingerprint()
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: the adapter cannot be"):
        load_adapter(moved.model, tmp_path)
    assert moved.weights_fingerprint() == before

    write = moved.model.save_pretrained

    def full_disk(folder: Path, **options: Any) -> None:
        write(folder, **options)
        cut_short(folder / "adapter_model.safetensors")

    monkeypatch.setattr(moved.model, "save_pretrained", full_disk)
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors: the adapter cannot be"):
        moved.save(tmp_path / "again")


def test_a_saved_adapter_that_differs_in_one_bit_is_not_the_one_in_memory(
    moved: Policy, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    save_adapter(moved.model, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[3]
    tensors[name].view(torch.int32)[0, 0] ^= 1
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=name):
        verify_adapter(moved.model, tmp_path)
    save_file(tensors | {"more": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="not the one in memory"):
        verify_adapter(moved.model, tmp_path)


def test_training_holds_no_second_model(moved: Policy, task: Task, anchors: list[Anchor]) -> None:
    def tensors() -> dict[str, int]:
        named = [*moved.model.named_parameters(), *moved.model.named_buffers()]
        return {name: tensor.data_ptr() for name, tensor in named}

    before = tensors()
    trainer = FastSlowTrainer(moved, task, 2, GRPO)
    channel = SlowChannel(GRPO, kl_budget=KlBudget(1e9, 4))
    channel.adapt(moved, task, anchors[0], 1, silent)
    assert tensors() == before
    of_the_channel: Any = channel._trainer
    for made in (trainer, of_the_channel):
        assert made is not None
        assert made.model is moved.model
        assert made.ref_model is None
        modules = [v for v in vars(made).values() if isinstance(v, torch.nn.Module)]
        assert all(module is moved.model for module in modules)
    assert list(moved.model.peft_config) == ["default"]


def test_old_resume_points_without_this_state_still_load(
    moved: Policy, tiny_folder: Path, tmp_path: Path
) -> None:
    moved.save(tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").glob("*.json")} == {
        "adapter_config.json",
        "texts.json",
    }
    (tmp_path / "slow.json").write_text(json.dumps({"stage": None, "step": 0, "progress": None}))
    channel = SlowChannel(GRPO, kl_budget=KlBudget(1.0, 4))
    channel.load(tmp_path)
    assert channel.kl_budget is not None
    assert not channel.kl_budget.is_hit
    again = fresh(tiny_folder)
    again.load(tmp_path / "kept")
    assert again.adapters.owner is None
