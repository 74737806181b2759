"""Float32 matrix products on processors: oneDNN makes them where it is as exact, and often faster.

torch makes float32 products with MKL, which is slow on processors of other makers, and asks oneDNN
only where it may round factors to bfloat16. Rounding is what oneDNN does on processors with AMX;
on others it multiplies in float32 all the same.
"""

import os

import torch

EXACT = 1e-5
"""Relative error of a product in float32, at most; with bfloat16 factors it is above 1e-3."""

KEPT_PRODUCTS = "64"
"""Compiled products that oneDNN keeps, one per shape. Its own limit is 1024, and nearly every
packed pass has a shape of its own: gigabytes. Source: ours; 64 hold the shapes of one pass."""


def allow_onednn() -> bool:
    """Let oneDNN make this process's float32 products if they stay so; whether it does from now."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:  # the caller has set it by torch's other interface, for each backend
        return False
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KEPT_PRODUCTS)  # read once, when used
    torch.set_float32_matmul_precision("medium")
    if _error_of_a_product() < EXACT:
        return True
    torch.set_float32_matmul_precision(before)
    return False


def _error_of_a_product() -> float:
    generator = torch.Generator().manual_seed(0)
    rows, weights = (torch.randn(64, 256, generator=generator) for _ in range(2))
    exact = rows.double() @ weights.double().T
    product = torch.nn.functional.linear(rows, weights)
    return float((product - exact).norm() / exact.norm())
