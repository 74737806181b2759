"""A tiny real model, and a policy over it with an adapter that has already moved."""

from pathlib import Path

import pytest

from fastslow.core.types import Anchor
from fastslow.loop.stream import Stream
from fastslow.policy.policy import Policy, load_policy, with_adapter
from fastslow.task.definition import Task
from tests.support.tiny import save_tiny
from tests.support.toy_tasks import letters


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture
def policy(tiny_folder: Path) -> Policy:
    """Fresh adapter: computes what its base computes."""
    base = load_policy(str(tiny_folder))
    return with_adapter(base, rank=4, alpha=8, target_modules="all-linear", seed=1)


@pytest.fixture
def moved(policy: Policy) -> Policy:
    """The adapter's zero half filled with noise, so that it computes something else."""
    import torch

    generator = torch.Generator().manual_seed(3)
    for name, parameter in policy.model.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return policy


@pytest.fixture
def task() -> Task:
    return letters.build("letters")


@pytest.fixture
def anchors(task: Task) -> list[Anchor]:
    """The anchors of a stage of three cycles, T = 2, Q = 2."""
    stream = Stream(
        task.name, task.train, seed=0, stage=0, start=0, num_cycles=3, steps=2, problems=2, pool=8
    )
    return [stream.anchor(cycle) for cycle in range(3)]
