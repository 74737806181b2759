"""The adapter: LoRA weights on a frozen base, their fingerprint and their files.

Files are what PEFT reads and writes (`adapter_config.json`, `adapter_model.safetensors`), so a
saved adapter loads in transformers and vLLM as it is.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastslow.errors import CheckpointError, ModelError


def attach_lora(
    model: Any, *, rank: int, alpha: float, target_modules: str | tuple[str, ...], seed: int
) -> Any:
    """Wrap `model` with a fresh LoRA adapter; its logits stay equal to the base's.

    Args:
        model: A transformers causal language model.
        rank: Rank of each update matrix.
        alpha: Updates are scaled by `alpha / rank`.
        target_modules: `"all-linear"` or names of linear modules.
        seed: Of the random half of the adapter; the global generators stay as they were.

    Raises:
        ModelError: No module of the model has one of the names.
    """
    from peft import LoraConfig, get_peft_model

    targets = target_modules if isinstance(target_modules, str) else list(target_modules)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=targets,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return get_peft_model(model, config)
        except ValueError as err:
            raise ModelError(
                f"slow.lora.target_modules: got {target_modules!r}, which fits no module of "
                f"{type(model).__name__}. Use 'all-linear' or names such as 'q_proj'."
            ) from err


def adapter_tensors(model: Any) -> dict[str, Tensor]:
    """The adapter's weights by name, sorted; empty for a model without one."""
    if not hasattr(model, "peft_config"):
        return {}
    from peft import get_peft_model_state_dict

    return dict(sorted(get_peft_model_state_dict(model).items()))


def adapter_fingerprint(model: Any) -> str:
    """Twelve hex digits over every bit of the adapter; "base" for a model without one."""
    tensors = adapter_tensors(model)
    if not tensors:
        return "base"
    digest = hashlib.blake2b(digest_size=6)
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter as a PEFT folder, safetensors only. Nothing for a model without one."""
    if hasattr(model, "peft_config"):
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)


def load_adapter(model: Any, folder: Path) -> None:
    """Put the weights saved in `folder` into the adapter `model` already has.

    Raises:
        CheckpointError: The file is missing, or its tensors are not this adapter's.
    """
    if not hasattr(model, "peft_config"):
        return
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no adapter there. Give a folder that fastslow or PEFT made."
        )
    saved, present = load_file(path), adapter_tensors(model)
    shapes = {name: tuple(tensor.shape) for name, tensor in present.items()}
    differing = [n for n in {*saved, *shapes} if n not in saved or shapes.get(n) != saved[n].shape]
    if differing:
        raise CheckpointError(
            f"{path}: not the adapter of this run, {len(differing)} of {len(shapes)} tensors "
            f"differ in name or shape, e.g. {min(differing)}. Use the run's own base and LoRA keys."
        )
    set_peft_model_state_dict(model, saved)


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
