"""The two parts of an adapter: one that is trained, and before it one that earlier stages froze.

The frozen part is the exact concatenation of what earlier stages trained, rank by rank: the update
B A of a stack of adapters is the sum of theirs. It is active along with the trainable part, so
nothing is folded into the base, and switching the adapter off still gives the base. Its weights are
buffers, since PEFT makes every active parameter trainable whenever it switches an adapter on.
"""

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from fastslow.core.seeds import seeded

TRAINED, FROZEN = "default", "earlier"
"""PEFT's names of the two parts."""


def trainable_weights(model: Any) -> dict[str, Parameter]:
    """The parameters of the trainable part themselves, by name."""
    return {name: weight for name, weight in _weights(model) if f".{TRAINED}." in name}


def is_switched_off(model: Any) -> bool:
    """Whether the model computes as the base now although it has an adapter."""
    return any(layer.disable_adapters for _, layer in _layers(model))


def adds_something(model: Any) -> bool:
    """Whether the adapter changes what the model computes; a fresh one does not, its B is zero."""
    return any(".lora_B." in name and bool(tensor.any()) for name, tensor in _weights(model))


def _layers(model: Any) -> list[tuple[str, Any]]:
    """The modules with adapters, by name; found once, since a walk through a model is slow."""
    layers: list[tuple[str, Any]] = vars(model).get("_fastslow_layers", [])
    if not layers:
        layers = [(name, m) for name, m in model.named_modules() if hasattr(m, "lora_A")]
        model._fastslow_layers = layers
    return layers


def _weights(model: Any) -> Iterator[tuple[str, Any]]:
    """Weights of the adapter by name; those of the frozen part are buffers."""
    for name, layer in _layers(model):
        for factor in ("lora_A", "lora_B"):
            for adapter, linear in getattr(layer, factor).items():
                yield f"{name}.{factor}.{adapter}.weight", linear.weight


@torch.no_grad()
def start_fresh(model: Any, seed: int) -> None:
    """Make the trainable part fresh: A random by its seed, B zero, so that it adds nothing.

    Drawn on the CPU as PEFT draws a new adapter, so that it is the same on every device.
    """
    with seeded(seed):
        for name, weight in trainable_weights(model).items():
            start = torch.zeros(weight.shape)
            if ".lora_A." in name:
                torch.nn.init.kaiming_uniform_(start, a=math.sqrt(5))
            weight.copy_(start)


def freeze_trained(model: Any, seed: int) -> None:
    """Move what is trained so far into the frozen part; a fresh trainable part starts.

    The model computes what it did before, up to the rounding of a sum.
    """
    tensors = concatenated(model)
    _put_frozen(model, {name: tensor.detach().clone() for name, tensor in tensors.items()})
    start_fresh(model, seed)


def frozen_weights(model: Any) -> dict[str, Tensor]:
    """The frozen part, by the names of the trainable weights; empty without one."""
    if FROZEN not in getattr(model, "peft_config", {}):
        return {}
    infix = f".{FROZEN}."
    named = _weights(model)
    return {name.replace(infix, f".{TRAINED}."): p.detach() for name, p in named if infix in name}


def put_frozen(model: Any, weights: Mapping[str, Tensor], seed: int) -> None:
    """Make weights, named as the trainable ones, the frozen part under a fresh trainable one."""
    infix = f".{TRAINED}."
    _put_frozen(model, {name.replace(infix, "."): weight for name, weight in weights.items()})
    start_fresh(model, seed)


def frozen_rank(model: Any) -> int:
    """Ranks of the frozen part; 0 when there is none."""
    return int(model.peft_config[FROZEN].r) if FROZEN in model.peft_config else 0


def concatenated(model: Any, *, frozen: bool = True) -> dict[str, Tensor]:
    """The adapter's weights by PEFT's names, sorted, the frozen ranks first unless left out."""
    trained = _part(model, TRAINED)
    if not frozen or FROZEN not in model.peft_config:
        return trained
    earlier = _part(model, FROZEN)
    return {n: torch.cat([earlier[n], trained[n]], rank_axis(n)) for n in trained}


def _part(model: Any, adapter: str) -> dict[str, Tensor]:
    """As `peft.get_peft_model_state_dict`, sorted; that walks every module for every tensor."""
    infix = f".{adapter}."
    named = _weights(model)
    tensors = {name.replace(infix, "."): p.detach() for name, p in named if infix in name}
    return dict(sorted(tensors.items()))


def put_parts(model: Any, tensors: Mapping[str, Tensor], rank: int) -> None:
    """Inverse of `concatenated`: the first `rank` ranks become the frozen part; 0 takes it away."""
    from peft import set_peft_model_state_dict

    trained_rank = int(model.peft_config[TRAINED].r)
    halves = {n: torch.split(t, [rank, trained_rank], dim=rank_axis(n)) for n, t in tensors.items()}
    _put_frozen(model, {name: first for name, (first, _) in halves.items()} if rank else {})
    set_peft_model_state_dict(model, {n: last for n, (_, last) in halves.items()}, TRAINED)


def _put_frozen(model: Any, tensors: Mapping[str, Tensor]) -> None:
    """Replace the frozen part; no tensors, no part."""
    from peft import set_peft_model_state_dict

    if FROZEN in model.peft_config:
        model.base_model.delete_adapter(FROZEN)
    if tensors:
        config = copy.deepcopy(model.peft_config[TRAINED])
        scaling = config.lora_alpha / config.r
        config.r = next(len(t) for name, t in tensors.items() if "lora_A" in name)
        config.lora_alpha = scaling * config.r
        config.inference_mode = True
        with seeded(0):  # PEFT draws a start for what is overwritten next
            model.add_adapter(FROZEN, config)
        set_peft_model_state_dict(model, dict(tensors), FROZEN)
        _make_buffers(model)
    model.base_model.set_adapter([FROZEN, TRAINED] if tensors else TRAINED)


def _make_buffers(model: Any) -> None:
    """Turn the frozen part's parameters into buffers, which nothing can train."""
    for _, layer in _layers(model):
        for module in (layer.lora_A[FROZEN], layer.lora_B[FROZEN]):
            weight = module.weight.detach()
            del module.weight
            module.register_buffer("weight", weight)


def rank_axis(name: str) -> int:
    """The axis of a factor, by its name, that its ranks lie on."""
    return 0 if "lora_A" in name else 1
