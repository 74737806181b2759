"""What if the base had changed by something else? Its weights are edited, and restored.

The base is never trained; this is the one place that writes into it.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from fastslow.core.errors import EvaluationError
from fastslow.policy.adapter.deltas import WeightDelta

Edit: TypeAlias = Callable[[str, Float[Tensor, "rows columns"]], Float[Tensor, "rows columns"]]
"""Takes a matrix's name and its change; gives what is to be added to the base in its place."""


@contextmanager
def base_changed_by(deltas: Iterable[WeightDelta], edit: Edit) -> Iterator[None]:
    """Within it the base's weights have an edited change added to them.

    Score in it with the adapter off, and draw nothing: the engine keeps caches of prompts by the
    adapter alone. A bfloat16 base rounds the sum, as a merged model does. Weights are restored
    whatever happens, from a copy that takes as much memory as they do.

    Raises:
        EvaluationError: A weight is not what it was before, bit for bit.
    """
    copies: list[tuple[str, Tensor, Tensor, str]] = []
    try:
        for delta in deltas:
            base = delta.base
            copies.append((delta.name, base, base.to("cpu", copy=True), _fingerprint(base)))
            base.add_(edit(delta.name, delta.dense()).to(base.dtype))
        yield
    finally:
        for _, base, copy, _ in copies:
            base.copy_(copy)
        changed = [name for name, base, _, before in copies if _fingerprint(base) != before]
        if changed:
            raise EvaluationError(
                f"{len(changed)} weights of the base are not what they were before they were "
                f"edited, e.g. {changed[0]}. What follows would be of another model: resume from "
                "the last resume point."
            )


def _fingerprint(weight: Tensor) -> str:
    """Of every bit of a matrix."""
    data = weight.contiguous().view(torch.uint8).cpu().numpy()
    return hashlib.sha256(data.data).hexdigest()
