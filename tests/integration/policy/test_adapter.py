"""Where an adapter is put, and that its files are what is in memory."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from fastslow.core.errors import CheckpointError, ModelError
from fastslow.policy.adapter.lora import adapter_tensors, load_adapter, save_adapter, verify_adapter
from fastslow.policy.adapter.parts import start_fresh
from fastslow.policy.policy import Policy, load_policy, with_adapter


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


def test_a_fresh_adapter_is_drawn_as_peft_draws_it_whatever_the_device(policy: Policy) -> None:
    start_fresh(policy.model, 5)
    fresh = policy.adapters.copied()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        for module in policy.model.modules():
            if hasattr(module, "reset_lora_parameters"):
                module.reset_lora_parameters("default", True)
    weights = policy.adapters.copied()
    assert weights.keys() == fresh.keys()
    assert all(torch.equal(weights[name], fresh[name]) for name in fresh)


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

    write = safetensors.torch.save_file

    def full_disk(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        write(tensors, path, metadata)
        cut_short(path)

    monkeypatch.setattr(safetensors.torch, "save_file", full_disk)
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
