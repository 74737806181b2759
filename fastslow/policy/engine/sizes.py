"""How large pieces of work are.

Small on a CPU, so that little is computed that a mask throws away; large on a card, where starting
a kernel takes longer than a small one runs.
"""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of the pieces that a pass is cut into."""

    block_tokens: int
    """Tokens of one block of attention at most. Larger blocks compute more scores that the mask
    throws away, smaller ones start more kernels."""
    pass_tokens: float
    """What starting one more forward and backward pass costs, in tokens."""
    head_nodes: int
    """Positions whose logits are in memory together."""
    copies_keys: bool
    """Whether heads that share a key head get a copy of its keys each; else the block's mask is
    copied for each, and the heads are rows of one query. The smaller copy depends on the block."""


CPU = Sizes(block_tokens=192, pass_tokens=150.0, head_nodes=128, copies_keys=False)
"""Source: ours. The pass is fitted to timings, and other blocks were tried, docs/log.md; a head of
128 nodes takes 25 MB at a vocabulary of 50,000 in float32."""
CARD = Sizes(block_tokens=2048, pass_tokens=2000.0, head_nodes=512, copies_keys=True)
"""Source: our estimates from one run on an H100 with the CPU's sizes, runs/reference/gpu, where a
pass over 660 tokens took as long as starting its kernels does. Not measured with these."""


def sizes_on(device: torch.device) -> Sizes:
    """Those that suit a device."""
    return CPU if device.type == "cpu" else CARD
