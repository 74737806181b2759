"""The adapter: LoRA weights on a frozen base, their fingerprint and their files.

Files are what PEFT reads and writes (`adapter_config.json`, `adapter_model.safetensors`), so a
saved adapter loads in transformers and vLLM as it is, as one adapter even where it consists of a
frozen and a trainable part (`parts.py`).
"""

import copy
import json
import re
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fastslow.core.errors import CheckpointError, ModelError, nearest
from fastslow.core.files import read_json
from fastslow.core.seeds import seeded
from fastslow.policy.adapter.parts import TRAINED, concatenated, frozen_rank, put_parts, rank_axis
from fastslow.policy.saved import BASE, PARTS_FILE, WEIGHTS_FILE, fingerprint

LAYER = re.compile(r"\.(\d+)\.")
"""The number of its layer in the name of a module."""
EXPERT_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
"""Names under which configurations keep the number of experts."""
EXPERT_NAMES = ("gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")
"""Names that PEFT takes for the experts' tensors in a model that has some."""


def attach_lora(
    model: Any,
    *,
    rank: int,
    alpha: float,
    target_modules: str | tuple[str, ...],
    seed: int,
    placement: Literal["all", "last_third"] = "all",
) -> Any:
    """Wrap `model` with a fresh LoRA adapter; its logits stay equal to the base's.

    Updates are scaled by `alpha / rank`. Targets are `"all-linear"` or names of linear modules; the
    last third is that of the layers, rounded down, at least one. `seed` is that of the random half
    of the adapter; the global generators stay as they were.

    Raises:
        ModelError: One of the names fits no module of the model, or none in those layers.
    """
    from peft import LoraConfig, get_peft_model

    from fastslow.policy.adapter.linear import InPlaceLinear

    targets = _targets(model, target_modules)
    if placement == "last_third":
        targets = _last_third(model, targets)
    if not targets:
        raise ModelError(
            f"slow.lora.target_modules: {type(model).__name__} has no linear module that an "
            "adapter can be put on. Run without weight updates: slow=null."
        )
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    config._register_custom_module({torch.nn.Linear: InPlaceLinear})
    with seeded(seed):
        return get_peft_model(model, config)


def _targets(model: Any, target_modules: str | tuple[str, ...]) -> list[str]:
    """What PEFT is given; PEFT alone would pass over a name that fits nothing if another fits."""
    if isinstance(target_modules, str):
        return default_targets(model)
    linear = list(_linear_names(model))
    for name in target_modules:
        if not any(f".{full}".endswith(f".{name}") for full in linear):
            names = sorted({full.rpartition(".")[2] for full in linear})
            raise ModelError(
                f"slow.lora.target_modules: got {name!r}, which fits no linear module of "
                f"{type(model).__name__}. Use 'all-linear' or names.{nearest(name, names)}"
            )
    return list(target_modules)


def default_targets(model: Any) -> list[str]:
    """The linear modules of all layers but routers: last names where those fit no other module.

    Left out are the head, routers, which LoRA recipes leave as they are, experts that a family
    keeps in one tensor, with the modules that PEFT cannot tell from them, and what PEFT cannot
    adapt in a state-space block.
    """
    linear = _linear_names(model)
    head, fused = model.get_output_embeddings(), _has_fused_experts(model)
    chosen = {
        name
        for name, module in linear.items()
        if module is not head
        and LAYER.search(name) is not None
        and not _is_router(model, name, module)
        and not _beyond_peft(model, name)
        and not (fused and name.rpartition(".")[2] in EXPERT_NAMES)
    }
    left_out = {name.rpartition(".")[2] for name, _ in model.named_modules() if name not in chosen}
    last_names = {name: name.rpartition(".")[2] for name in chosen}
    return sorted({name if last in left_out else last for name, last in last_names.items()})


def _is_router(model: Any, name: str, module: torch.nn.Module) -> bool:
    """Whether a module only says where a token goes: one number, or one for each expert."""
    config = model.config.get_text_config()
    experts = {getattr(config, key, None) for key in EXPERT_COUNTS}
    outputs = getattr(module, "out_features", getattr(module, "nf", None))
    return ("gate" in name or "router" in name) and (outputs == 1 or outputs in experts)


def _beyond_peft(model: Any, name: str) -> bool:
    from peft import LoraConfig
    from peft.tuners.tuners_utils import _check_lora_target_modules_mamba

    try:
        _check_lora_target_modules_mamba(LoraConfig(), model, name.rpartition(".")[2])
    except ValueError:
        return True
    return False


def _has_fused_experts(model: Any) -> bool:
    """Whether some layer keeps its experts' matrices in one tensor [experts, rows, columns]."""
    return any(p.dim() == 3 and "expert" in name for name, p in model.named_parameters())


def _last_third(model: Any, targets: list[str]) -> list[str]:
    """Full names of the targets in the last third of the layers."""
    num_layers = model.config.get_text_config().num_hidden_layers
    first = num_layers - max(1, num_layers // 3)
    placed = [
        name
        for name in _linear_names(model)
        if (match := LAYER.search(name)) is not None
        and int(match.group(1)) >= first
        and any(f".{name}".endswith(f".{target}") for target in targets)
    ]
    if not placed:
        raise ModelError(
            f"slow.lora.placement: got 'last_third', but layers {first} to {num_layers - 1} of "
            f"{type(model).__name__} have no module of slow.lora.target_modules = {targets!r}. "
            "Use 'all', or names of modules in those layers."
        )
    return placed


def _linear_names(model: Any) -> dict[str, torch.nn.Module]:
    """Linear modules by their full name."""
    from transformers.pytorch_utils import Conv1D

    linear = (torch.nn.Linear, Conv1D)
    return {name: module for name, module in model.named_modules() if isinstance(module, linear)}


def adapter_tensors(model: Any) -> dict[str, Tensor]:
    """The adapter's weights by name, sorted, all parts as one; empty for a model without one."""
    return concatenated(model) if hasattr(model, "peft_config") else {}


def adapter_fingerprint(model: Any) -> str:
    """Twelve hex digits over every bit of the adapter; "base" for a model without one."""
    tensors = adapter_tensors(model)
    if not tensors:
        return BASE
    return fingerprint((name, _bytes(tensor)) for name, tensor in tensors.items())


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter as a PEFT folder, safetensors only. Nothing for a model without one.

    Both parts become one adapter. PEFT's own `save_pretrained` also renders a model card into each
    new folder, which takes longer than all the rest.

    Raises:
        CheckpointError: What lies in the folder afterwards is not the adapter.
    """
    if not hasattr(model, "peft_config"):
        return
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous() for name, tensor in adapter_tensors(model).items()}
    save_file(tensors, folder / WEIGHTS_FILE, {"format": "pt"})
    config = copy.copy(model.peft_config[TRAINED])
    config.inference_mode = True
    (folder / PARTS_FILE).unlink(missing_ok=True)
    if rank := frozen_rank(model):
        (folder / PARTS_FILE).write_text(json.dumps({"frozen_rank": rank}))
        config.lora_alpha = config.lora_alpha / config.r * (config.r + rank)
        config.r += rank
    config.save_pretrained(folder)
    verify_adapter(model, folder)


def verify_adapter(model: Any, folder: Path) -> None:
    """Read a saved adapter back and compare it with the one in memory, tensor by tensor.

    Raises:
        CheckpointError: It cannot be read, or a tensor is missing or differs.
    """
    saved, _ = _read(folder)
    for name, tensor in adapter_tensors(model).items():
        if name not in saved or not torch.equal(saved.pop(name), tensor.detach().cpu()):
            raise CheckpointError(
                f"{folder / WEIGHTS_FILE}: the saved adapter is not the one in memory, got another "
                f"{name}. A run could not continue from it. Check the disk, and that no other "
                "program writes there."
            )
    if saved:
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE}: holds {len(saved)} tensors that the adapter does not have, "
            f"e.g. {min(saved)}. Check that no other program writes there."
        )


def load_adapter(model: Any, folder: Path) -> None:
    """Put the weights saved in `folder` into the adapter `model` already has.

    Raises:
        CheckpointError: The file is missing or damaged, or its tensors are not this adapter's.
    """
    if not hasattr(model, "peft_config"):
        return
    saved, frozen = _read(folder)
    shapes = {name: list(tensor.shape) for name, tensor in saved.items()}
    present = {name: list(t.shape) for name, t in concatenated(model, frozen=False).items()}
    for name, shape in present.items():
        shape[rank_axis(name)] += frozen  # frozen ranks stand before those of the trainable part
    differing = [n for n in {*shapes, *present} if shapes.get(n) != present.get(n)]
    if differing:
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE}: not the adapter of this run, {len(differing)} of "
            f"{len(present)} tensors differ in name or shape, e.g. {min(differing)}. "
            "Use the run's own base and LoRA keys."
        )
    put_parts(model, saved, frozen)


def _read(folder: Path) -> tuple[dict[str, Tensor], int]:
    """Tensors of a saved adapter, and how many of its ranks, the first ones, are frozen."""
    from safetensors import SafetensorError, safe_open

    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no adapter there. Give a folder that fastslow or PEFT made."
        )
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        parts_file = folder / PARTS_FILE
        ranks = read_json(parts_file) if parts_file.is_file() else {"frozen_rank": 0}
        return tensors, ranks["frozen_rank"]
    except (SafetensorError, ValueError, OSError) as err:
        raise CheckpointError(
            f"{path}: the adapter cannot be read, got {err}. The file is damaged: use the resume "
            "point before this one, or a copy."
        ) from err


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
