"""Adapters of the tiny model: made, moved as training would, and begun as a stage does."""

from pathlib import Path
from typing import Literal

import torch

from fastslow.channels.slow.remedies.adapter_policy import adapter_policy
from fastslow.channels.slow.remedies.base import Memory, Stage
from fastslow.policy.adapter.parts import trainable_weights
from fastslow.policy.policy import Policy, load_policy, with_adapter
from tests.support.toy_tasks import letters


def fresh(folder: Path, seed: int = 9) -> Policy:
    base = load_policy(str(folder))
    return with_adapter(base, rank=4, alpha=8, target_modules="all-linear", seed=seed)


def move(policy: Policy, seed: int, size: float = 0.2) -> None:
    """Fill the trainable part's zero half with noise, as training would."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in trainable_weights(policy.model).items():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * size)


def begin(
    policy: Policy,
    task: str,
    how: Literal["continue", "merge-then-new", "new-per-stage"] = "continue",
    seed: int = 5,
) -> None:
    """Begin a stage of this task under an adapter policy, and keep its start."""
    if how != "continue":
        remedy = adapter_policy(how, lambda index: seed)
        assert remedy.begin is not None
        remedy.begin(Stage(policy, letters.build(task), 0, (), seed=0), Memory())
    policy.adapters.begin(task, trains=True, keep_start=True)
