"""LoRA's linear layer in as few passes over memory as its products need.

PEFT computes `base(x) + B(A(x)) * scaling` as a tensor of the output's size for every operation,
and as many for the gradient. Next to thin products those passes are what an adapter costs. Here the
product that makes the low-rank term adds it in place, forward and backward.
"""

from collections.abc import Sequence
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor


class InPlaceLinear(Linear):  # type: ignore[misc]  # peft is untyped
    """PEFT's layer over `torch.nn.Linear`; what is not plain LoRA in one dtype is left to PEFT."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """[..., in] -> [..., out]."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        output: Tensor
        if args or kwargs or not self._is_plain(x, names):
            output = super().forward(x, *args, **kwargs)
            return output
        pairs = [weight for name in names for weight in self._weights(name)]
        scalings = [float(self.scaling[name]) for name in names]
        base, rows = self.base_layer, x.flatten(0, -2)
        if torch.is_grad_enabled():
            output = _LoraProduct.apply(  # type: ignore[no-untyped-call]  # torch's own
                rows, base.weight, base.bias, scalings, *pairs
            )
        else:
            output, _ = _product(rows, base.weight, base.bias, scalings, pairs)
        return output.view(*x.shape[:-1], -1)

    def _weights(self, name: str) -> tuple[Tensor, Tensor]:
        """A [rank, in] and B [out, rank] of an adapter."""
        return self.lora_A[name].weight, self.lora_B[name].weight

    def _is_plain(self, x: Tensor, names: list[str]) -> bool:
        """Whether the output is the base's product and the sum of the adapters', nothing else."""
        base = self.base_layer
        if self.disable_adapters or self.merged or type(base) is not torch.nn.Linear:
            return False
        if base._forward_hooks or base._forward_pre_hooks or base.weight.requires_grad:
            return False
        return all(
            name not in self.lora_variant
            and isinstance(self.lora_dropout[name], torch.nn.Identity)
            and self.lora_B[name].bias is None
            and all(w.dtype == x.dtype == base.weight.dtype for w in self._weights(name))
            for name in names
        )


def _product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scalings: Sequence[float],
    pairs: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor]]:
    """Rows x W^T + b + sum of s (x A^T) B^T, [rows, out]; and every s x A^T, [rows, rank]."""
    output = torch.nn.functional.linear(x, weight, bias)
    lows = []
    for a, b, scaling in zip(pairs[::2], pairs[1::2], scalings, strict=True):
        low = torch.mm(x, a.T).mul_(scaling)
        output.addmm_(low, b.T)
        lows.append(low)
    return output, lows


class _LoraProduct(torch.autograd.Function):
    """`_product` with a way back to x, A and B; the frozen W and b get no gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        scalings: list[float],
        *pairs: Tensor,
    ) -> Tensor:
        output, lows = _product(x, weight, bias, scalings, pairs)
        ctx.scalings = scalings
        ctx.save_for_backward(x, weight, *pairs, *lows)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, *others = ctx.saved_tensors
        count = len(ctx.scalings)
        pairs, lows = others[: 2 * count], others[2 * count :]
        to_x = torch.mm(gradient, weight) if ctx.needs_input_grad[0] else None
        to_pairs: list[Tensor | None] = []
        for index, scaling in enumerate(ctx.scalings):
            a, b = pairs[2 * index : 2 * index + 2]
            needs_a, needs_b = ctx.needs_input_grad[4 + 2 * index : 6 + 2 * index]
            to_low = torch.mm(gradient, b).mul_(scaling)  # [rows, rank]
            if to_x is not None:
                to_x.addmm_(to_low, a)
            to_pairs.append(torch.mm(to_low.T, x) if needs_a else None)
            # [rank, out], then transposed: MKL makes it faster than [out, rank]
            to_pairs.append(torch.mm(lows[index].T, gradient).T if needs_b else None)
        return to_x, None, None, None, *to_pairs
