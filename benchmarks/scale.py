"""What a run takes at other sizes: memory, storage and traffic, from the models' own shapes.

    python -m benchmarks.scale                     # prints the tables, writes nothing
    python -m benchmarks.scale --keep              # writes the figures and docs/scale.md too

Models are built on torch's meta device, which has shapes and no numbers, and get the adapter that
the slow channel would give them: every count is of real parameters. docs/scale.md says what the
figures mean.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmarks.figures import write_figures
from benchmarks.keeping import REFERENCE, ROOT
from fastslow.policy.adapter.lora import attach_lora
from fastslow.policy.adapter.parts import trainable_weights

FILE = REFERENCE / "scale.json"
LOOKS = REFERENCE / "grid_status.json"
"""What `benchmarks.grid_status` wrote."""
PAGE = ROOT / "docs" / "scale.md"
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
NUM_TASKS = (5, 20, 100)
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


def tables(sizes: Sequence[Size], looks: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Markdown of what sizes, and looks at many run folders, come to, by its place in the page."""
    bases = [f"base per process, {number}" for number in PROCESSES]
    models = [
        _row("model", "parameters", f"adapter, rank {RANK}", "one version", "resume point", *bases),
        "| --- " * (5 + len(PROCESSES)) + "|",
    ]
    for size in sizes:
        shares = [_bytes(size.base_bytes(number)) for number in PROCESSES]
        counts = f"{size.weights / 1e9:.2f} B", f"{size.adapter / 1e6:.1f} M"
        kept = _bytes(size.swap_bytes), _bytes(size.resume_bytes)
        models.append(_row(size.model, *counts, *kept, *shares))
    eight = sizes[1]
    tasks = [
        _row("tasks", "cells of the score matrix", f"adapters of all stages, {eight.model}"),
        "| --- | --- | --- |",
        *(_row(n, n * (n + 1), _bytes(n * eight.swap_bytes)) for n in NUM_TASKS),
    ]
    last = SERVER_RANKS[-1] // RANK
    ranks = (
        f"Under `merge-then-new` every stage adds {RANK} ranks, and stage {last} reaches the "
        f"largest rank that a vLLM server takes, {SERVER_RANKS[-1]}."
    )
    runs = [
        "`fastslow ablate` looks at every run folder when it starts, and at one when a run ends.",
        "`python -m benchmarks.grid_status` measured here:",
        "",
        _row("runs", "first look at all, seconds", "next look at all", "look at one"),
        "| --- | --- | --- | --- |",
        *(_row(n, *(f"{value:.2f}" for value in look.values())) for n, look in looks.items()),
    ]
    lines = {"models": models, "tasks": tasks, "ranks": [ranks], "runs": runs}
    return {place: "\n".join(text) for place, text in lines.items()}


def page() -> str:
    """docs/scale.md with the tables of the kept figures in their places."""
    text, figures = PAGE.read_text(), json.loads(FILE.read_text())
    looks = json.loads(LOOKS.read_text())["looks"]
    for place, table in tables([Size(**size) for size in figures["sizes"]], looks).items():
        pattern = rf"(<!-- {place} -->\n).*?(<!-- end -->)"
        text = re.sub(pattern, rf"\g<1>{table}\n\g<2>", text, flags=re.DOTALL)
    return text


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _bytes(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables; keep the counts if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="write the figures and the page")
    options = parser.parse_args(arguments)
    sizes = [size_of(name, shape) for name, shape in SHAPES.items()]
    print("\n\n".join(tables(sizes, {}).values()))
    if options.keep:
        write_figures(FILE, {"sizes": [asdict(size) for size in sizes]}, "scale", arguments)
        PAGE.write_text(page())


if __name__ == "__main__":
    main()
