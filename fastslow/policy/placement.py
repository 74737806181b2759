"""Where a model is, and in which number format, on this machine and in this process."""

import os
from typing import Any

import torch

from fastslow.core.errors import ModelError


def pick_device(device: str) -> str:
    """The device of this process: `cuda` is its own one of several, `auto` that one or the CPU.

    Raises:
        ModelError: `cuda` was asked for and there is none, or none for this process.
    """
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise ModelError("model.device: got 'cuda', but torch sees no CUDA device. Use 'auto'.")
    index, cards = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= cards:
        raise ModelError(
            f"model.device: process {index + 1} of this machine has no CUDA device of its own: "
            f"torch sees {cards}. Start as many processes: torchrun --nproc_per_node {cards}."
        )
    return f"cuda:{index}"


def pick_dtype(dtype: str, device: str) -> str:
    """The number format of weights on a device that `pick_device` gave; `auto` depends on it."""
    if dtype != "auto":
        return dtype
    has_bfloat16 = device != "cpu" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if has_bfloat16 else "float32"


def repeat_exactly(device: str) -> None:
    """Have a card give the same bits for the same work, as the CPU does: runs resume by that.

    Before the card is used. Where torch has no such way it warns, and goes on.

    Source: https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    if device == "cpu":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False  # ours is written before it is read
