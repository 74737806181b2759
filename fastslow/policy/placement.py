"""Where a model is, and in which number format, on this machine and in this process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
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


def adds_in_any_order(device: torch.device) -> bool:
    """Whether attention on this device adds up its gradients in an order that changes.

    torch's fused attention does where it is told to warn alone of what cannot be repeated, as
    `repeat_exactly` tells it.
    """
    return device.type != "cpu" and torch.is_deterministic_algorithms_warn_only_enabled()


@contextmanager
def in_one_order() -> Iterator[None]:
    """Within it torch's fused attention adds up its gradients in one order.

    Around both ways: forward it picks kernels that can. For attention alone: an operation that has
    no such way would fail here.
    """
    if not torch.is_deterministic_algorithms_warn_only_enabled():
        yield
        return
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=True)


def repeat_exactly(device: str) -> None:
    """Have a card give the same bits for the same work, as the CPU does: runs resume by that.

    Before the card is used. Where torch has no such way it warns, and goes on. It then leaves
    attention as it is, which is what `in_one_order` is for.

    Source: https://docs.pytorch.org/docs/stable/notes/randomness.html
    """
    if device == "cpu":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic: Any = torch.utils.deterministic
    deterministic.fill_uninitialized_memory = False  # ours is written before it is read
