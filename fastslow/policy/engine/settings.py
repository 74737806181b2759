"""Which engine draws completions, and how the weights are spread over the trainer's processes."""

from typing import Annotated, Literal

from pydantic import Tag

from fastslow.core.keys import OURS, Model, key, kind_among


class EngineKeys(Model):
    """Keys of every engine."""

    sharding: Literal["none", "fsdp2"] = key("none", "name", "PyTorch, torch.distributed.fsdp")
    """Whether each process of a run started by `torchrun` holds all weights, or `fsdp2`: a share of
    every layer, fetched from the others when it is needed. One process alone keeps all."""


class TorchConfig(EngineKeys):
    """Engine: the model that is trained draws its completions itself, in the same process."""

    kind: Literal["torch"] = key("torch", "name", OURS)
    """Which engine."""


EngineConfig = Annotated[Annotated[TorchConfig, Tag("torch")], kind_among("torch")]
"""The engine's section: one model per `kind`."""
