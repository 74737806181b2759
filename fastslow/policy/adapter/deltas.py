"""What an adapter adds to each weight matrix, one matrix at a time.

The product of the two factors is made where it is needed and dropped again, so that the model is
never in memory twice; ranks come from the small factors alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fastslow.policy.engine.shards import whole_weight


@dataclass(frozen=True)
class WeightDelta:
    """The change of one weight matrix, as two factors, in float32."""

    name: str
    """Of the module, as in the base model."""
    base: Float[Tensor, "rows columns"]
    """The base's weight, in the model's own number format; not a copy, unless it is sharded."""
    left_factor: Float[Tensor, "rows rank"]
    right_factor: Float[Tensor, "rank columns"]

    def dense(self) -> Float[Tensor, "rows columns"]:
        """The change itself, `left_factor @ right_factor`."""
        return self.left_factor @ self.right_factor

    def singular_values(self) -> list[float]:
        """Singular values of the change, descending; as many as the factors have ranks at most.

        From the triangular factors of both sides, in float64: the same as the matrix's own.
        """
        left_factor = torch.linalg.qr(self.left_factor.double()).R
        right_factor = torch.linalg.qr(self.right_factor.double().T).R
        values: list[float] = torch.linalg.svdvals(left_factor @ right_factor.T).tolist()
        return values


def weight_deltas(
    model: Any, after: Mapping[str, Tensor], before: Mapping[str, Tensor] | None = None
) -> Iterator[WeightDelta]:
    """The merged update of an adapter, or what a stage added to it, matrix by matrix.

    The adapter's weights are given by PEFT's names, frozen ranks included, and have the scaling of
    the model's adapter, whose own weights are not used. Without `before` the base is the start.
    """
    names = sorted(name for name in after if ".lora_A." in name)
    for name in names:
        path = name.partition(".lora_A.")[0]
        module = model.get_submodule(path)
        scaling = float(next(iter(module.scaling.values())))
        left_factor, right_factor = _factors(after, name, scaling)
        if before is not None:
            left_factor_before, right_factor_before = _factors(before, name, scaling)
            left_factor = torch.cat([left_factor, -left_factor_before], dim=1)
            right_factor = torch.cat([right_factor, right_factor_before], dim=0)
        if getattr(module, "fan_in_fan_out", False):
            left_factor, right_factor = right_factor.T, left_factor.T
        base = whole_weight(model, module.get_base_layer())
        yield WeightDelta(
            base_name(path), base, left_factor.to(base.device), right_factor.to(base.device)
        )


def _factors(tensors: Mapping[str, Tensor], name: str, scaling: float) -> tuple[Tensor, Tensor]:
    b = tensors[name.replace(".lora_A.", ".lora_B.")]
    return b.detach().float() * scaling, tensors[name].detach().float()


def base_name(name: str) -> str:
    """The name a module has in the base model, from its name in the model with an adapter."""
    return name.removeprefix("base_model.model.")
