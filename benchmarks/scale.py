"""What a run takes at other sizes: memory, storage and traffic, from the models' own shapes.

    python -m benchmarks.scale                     # prints the tables, writes nothing
    python -m benchmarks.scale --keep              # writes runs/reference/scale.json too

Models are built on torch's meta device, which has shapes and no numbers, and get the adapter that
the slow channel would give them: every count is of real parameters. docs/scale.md says what the
figures mean.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.figures import write_figures
from benchmarks.keeping import REFERENCE
from fastslow.policy.adapter.lora import attach_lora
from fastslow.policy.adapter.parts import trainable_weights

FILE = REFERENCE / "scale.json"
RANK = 8
SHAPES: dict[str, dict[str, int]] = {
    "0.1B (SmolLM2-135M)": {
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
    },
    "8B (Llama-3.1-8B)": {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
    },
    "70B (Llama-3.1-70B)": {
        "hidden_size": 8192,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "intermediate_size": 28672,
        "vocab_size": 128256,
    },
}
"""Sizes as the models' published configurations have them."""
PROCESSES = (1, 8, 64)
SERVER_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM 0.32 takes for `--max-lora-rank`."""


@dataclass(frozen=True)
class Size:
    """A model with its adapter; bytes unless it says otherwise."""

    model: str
    weights: int
    """Parameters of the base."""
    layers: int
    """Of them in decoder layers: what `engine.sharding: fsdp2` spreads out."""
    adapter: int
    """Parameters of the adapter at rank 8, on every linear layer."""

    def base_bytes(self, processes: int) -> int:
        """The base in bfloat16, held by one of so many processes under fsdp2."""
        return 2 * (self.weights - self.layers + self.layers // processes)

    @property
    def swap_bytes(self) -> int:
        """What a server reads of one version of the weights, and what a stage keeps: float32."""
        return 4 * self.adapter

    @property
    def resume_bytes(self) -> int:
        """A resume point: the adapter and AdamW's two moments, float32."""
        return 3 * self.swap_bytes

    @property
    def trained_bytes(self) -> int:
        """On the trainer beside the base: the adapter, its gradient and both moments, float32."""
        return 4 * self.swap_bytes


def size_of(name: str, shape: dict[str, int]) -> Size:
    """Count a model of this shape."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config: Any = LlamaConfig(**shape, tie_word_embeddings=shape["vocab_size"] < 100_000)
    with torch.device("meta"):
        model: Any = LlamaForCausalLM(config)
        weights = sum(p.numel() for p in model.parameters())
        layers = sum(p.numel() for p in model.model.layers.parameters())
        model = attach_lora(model, rank=RANK, alpha=16, target_modules="all-linear", seed=0)
    adapter = sum(p.numel() for p in trainable_weights(model).values())
    return Size(name, weights, layers, adapter)


def tables(sizes: Sequence[Size]) -> list[str]:
    """Markdown of what the sizes come to."""
    lines = [
        f"| model | parameters | adapter, rank {RANK} | one version, one stage | resume point | "
        + " | ".join(f"base per process, {n}" for n in PROCESSES)
        + " | adapter on the trainer |",
        "| --- " * (6 + len(PROCESSES)) + "|",
    ]
    for size in sizes:
        bases = " | ".join(_bytes(size.base_bytes(number)) for number in PROCESSES)
        lines.append(
            f"| {size.model} | {size.weights / 1e9:.2f} B | {size.adapter / 1e6:.1f} M "
            f"| {_bytes(size.swap_bytes)} | {_bytes(size.resume_bytes)} | {bases} "
            f"| {_bytes(size.trained_bytes)} |"
        )
    lines += [
        "",
        "| tasks | cells of the score matrix | adapters of all stages (8B) |",
        "| --- " * 3 + "|",
    ]
    eight = sizes[1]
    lines += [
        f"| {tasks} | {tasks * (tasks + 1)} | {_bytes(tasks * eight.swap_bytes)} |"
        for tasks in (5, 20, 100)
    ]
    last = SERVER_RANKS[-1] // RANK
    return [
        *lines,
        "",
        f"Under `merge-then-new` every stage adds {RANK} ranks: stage {last} reaches the server's "
        f"largest rank, {SERVER_RANKS[-1]}.",
    ]


def _bytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables; keep the counts if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", action="store_true", help=f"write {FILE.name} of runs/reference")
    options = parser.parse_args(arguments)
    sizes = [size_of(name, shape) for name, shape in SHAPES.items()]
    print("\n".join(tables(sizes)))
    if options.keep:
        write_figures(FILE, {"sizes": [asdict(size) for size in sizes]}, "scale", arguments)


if __name__ == "__main__":
    main()
