"""Core rows: the rows of each matrix that a task changed most never change again.

After CPI-FT (arXiv 2508.21741), which freezes single weights. Of a product B A no single weight can
be kept, since moving a row of A moves a whole column; rows can, exactly: where later adapters have
B[i, :] = 0, row i of their update is 0.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from fastslow.channels.slow.remedies.base import (
    AdapterPolicy,
    Ended,
    Memory,
    Remedy,
    RemedyConfig,
    Update,
    Weights,
    remedy,
)
from fastslow.core.keys import Rate, key

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer


class CoreRowsConfig(RemedyConfig):
    """Rows of weight matrices that earlier tasks changed most are frozen."""

    adapter_policies: ClassVar[tuple[AdapterPolicy, ...]] = ("merge-then-new",)
    why_not: ClassVar[str] = "freezes rows of an update, which only a new adapter leaves alone"

    kind: Literal["core_rows"] = key("core_rows", "name", "after CPI-FT, arXiv 2508.21741")
    """Which remedy."""
    share: Rate = key(0.01, "share of rows", "CPI-FT's share of weights")
    """Of all rows of all adapted matrices, those that a stage changed most; they join the core."""


@remedy(name="core_rows", source="after CPI-FT, arXiv 2508.21741; rows instead of weights are ours")
def core_rows(config: CoreRowsConfig) -> Remedy:
    """Freezes the rows of each matrix that earlier tasks changed most."""

    def project(weights: Weights, memory: Memory) -> None:
        for name, core in memory.tensors.items():
            gradient = weights[name].grad
            if gradient is not None:
                gradient[core] = 0

    def settle(weights: Weights, memory: Memory, update: Update, optimizer: "Optimizer") -> None:
        # as well as the gradient: AdamW moves a weight on by its momentum alone
        for name, core in memory.tensors.items():
            weights[name].data[core] = 0

    def end(ended: Ended, memory: Memory) -> dict[str, float | None]:
        import torch

        weights = ended.stage.policy.adapters.copied()
        energies = {
            name: row_energy(weight, weights[name.replace(".lora_B.", ".lora_A.")])
            for name, weight in weights.items()
            if ".lora_B." in name
        }
        sizes = torch.cat(list(energies.values()))
        count = max(1, int(config.share * len(sizes)))
        threshold = sizes.topk(count).values[-1]
        core_size = 0
        for name, energy in energies.items():
            core = (energy >= threshold) & (energy > 0)
            if name in memory.tensors:
                core |= memory.tensors[name]
            memory.tensors[name] = core
            core_size += int(core.sum())
        total = float(sizes.sum())
        top = float(sizes.topk(count).values.sum())
        return {
            "core_frac": core_size / len(sizes),
            "core_energy": top / total if total else None,
        }

    return Remedy(project=project, settle=settle, end=end)


def row_energy(left_factor: "Tensor", right_factor: "Tensor") -> "Tensor":
    """Squared norm of each row of B A, without the product: e_i = [B (A A^T) B^T]_ii.

    B is [rows, rank], A [rank, columns]; the result [rows].
    """
    return ((left_factor @ (right_factor @ right_factor.T)) * left_factor).sum(-1)
