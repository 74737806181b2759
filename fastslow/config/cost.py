"""What a run will cost, from its configuration alone: counts that are exact, and estimates.

Counts are those of `ledger.py`; minutes and memory follow from the model's size.
Minutes take every input for short, since no data is read: a question of a few words, an answer of a
word. Runs on news items take several times as long; see docs/decisions.md.
"""

import json
import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastslow.channels.fast.settings import fitting_proposals
from fastslow.config.ledger import Ledger
from fastslow.config.models import RunConfig
from fastslow.core.text import shorten

REFERENCE_PARAMETERS = 134.5e6
"""Size at which the rates below were measured: SmolLM2-135M; time grows in proportion."""
SAMPLED_TOKENS_PER_S = 156.0
"""Sampling, 135M, batch of 64, float32, 2 cores. Source: early probe, docs/decisions.md."""
TRAINED_TOKENS_PER_S = 125.0
"""LoRA forward and backward, 135M, 2 cores. Source: early probe, docs/decisions.md."""
SAMPLED_TOKENS_PER_ROLLOUT = 6.0
"""Answer of a word-level task with its stop token. Source: design assumption."""
TRAINED_TOKENS_PER_ROW = 11.0
"""Tokens of a training batch per row (a rollout, or a gold answer under a prompt), shared prefixes
counted once. Source: fitted, so that an update of 8 problems x 8 rollouts takes the 8 s it was
measured to take."""
START_S = 30.0
"""Imports, loading the model, reports. Source: our guess, on the high side."""
PROCESS_GB = 1.0
"""Interpreter and libraries before any weight. Source: our guess, on the high side."""
BYTES_PER_WEIGHT = {"float32": 4, "bfloat16": 2}
MAX_HEADER_BYTES = 100_000_000
"""Longest header the safetensors format allows."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The figures of a model that its cost follows from."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    vocab: int


KNOWN_SHAPES = {"smollm2-135m-instruct": ModelShape(134_515_008, 30, 576, 1536, 49152)}
"""Models known by name, by what their weight files say."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run spends."""

    slow_rollouts: int
    """Rollouts that weight updates are made from, 0 for a slow channel that draws none; and at
    most those that shrinking is scored on."""
    fast_rollouts: int
    """Rollouts the fast channel scores prompts with, the choice of that to deploy included."""
    fast_proposals: int | None
    """New prompts that a fast phase pays for at least; None without a fast channel."""
    optimizer_steps: int
    """Weight updates."""
    evaluation_cells: int
    """Cells of the score matrix: (stages + 1) x tasks."""
    evaluation_rollouts: int | None
    """Completions scored or measured at most: what changed neither weights nor prompt is not drawn
    again. None when whole test splits are taken."""
    minutes: float | None
    """Estimate for 2 CPU cores; None when the model's size is unknown."""
    memory_gb: float | None
    """Estimate of the peak, in 10^9 bytes; None when the model's size is unknown."""
    note: str
    """What the estimates rest on, or why there are none."""

    def lines(self) -> list[str]:
        """The figures as a person reads them, one a line."""
        unknown = "unknown: the whole test split"
        evaluated = unknown if self.evaluation_rollouts is None else f"{self.evaluation_rollouts:,}"
        proposals = "none" if self.fast_proposals is None else f"at least {self.fast_proposals:,}"
        minutes = "unknown" if self.minutes is None else f"about {self.minutes:.0f}"
        memory = "unknown" if self.memory_gb is None else f"about {self.memory_gb:.1f} GB"
        return [
            f"slow rollouts        {self.slow_rollouts:,}",
            f"fast rollouts        {self.fast_rollouts:,}",
            f"new prompts a cycle  {proposals}",
            f"optimizer updates    {self.optimizer_steps:,}",
            f"evaluation cells     {self.evaluation_cells:,}",
            f"evaluation rollouts  {evaluated}",
            f"minutes              {minutes}",
            f"memory               {memory}",
            self.note,
        ]


def estimate_cost(config: RunConfig) -> Cost:
    """Count what a complete run will spend, and estimate minutes and memory on 2 CPU cores.

    Rollouts and updates are exact, save that a fast channel, shrinking and a stage whose KL budget
    is spent may stop early.
    """
    ledger = Ledger(config)
    rollouts: Counter[str] = Counter()
    for entry in ledger.entries:
        rollouts[entry.part] += entry.rollouts
    slow = rollouts.pop("slow", 0) + rollouts.pop("shrink", 0)
    fast = rollouts.pop("fast", 0) + rollouts.pop("choice", 0)
    if config.probe is not None:
        rollouts["probe"] = 2 * config.probe.seeds * ledger.curve(config.probe).rollouts
    evaluated = None if config.evaluation.test_examples is None else rollouts.total()
    trained = [entry.trained for entry in ledger.entries if entry.part == "slow"]
    shape = model_shape(config.model.name)
    return Cost(
        slow_rollouts=slow,
        fast_rollouts=fast,
        fast_proposals=_fast_proposals(config),
        optimizer_steps=len(trained) * config.cycle.optimizer_steps,
        evaluation_cells=(len(config.stages) + 1) * len(config.task_names),
        evaluation_rollouts=evaluated,
        minutes=_minutes(shape, slow + fast + (evaluated or 0), sum(trained)) if shape else None,
        memory_gb=_memory_gb(config, shape) if shape else None,
        note=_note(config, shape),
    )


def model_shape(name: str) -> ModelShape | None:
    """Size of a model known by name or lying in a local folder; None for anything else.

    The folder's safetensors headers give the parameters, its config.json the rest.
    """
    if name in KNOWN_SHAPES:
        return KNOWN_SHAPES[name]
    folder = Path(name)
    try:
        parameters = sum(_count_parameters(path) for path in sorted(folder.glob("*.safetensors")))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        keys = ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size")
        sizes = [int(config[key]) for key in keys]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error):
        return None  # the loader says what is wrong with a folder; an estimate needs no opinion
    return ModelShape(parameters, *sizes) if parameters else None


def _count_parameters(path: Path) -> int:
    """Number of weights in one safetensors file, from its header.

    Source: the safetensors format: 8 bytes of length, little-endian, then that much JSON.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > MAX_HEADER_BYTES:
            raise ValueError(f"header of {length} bytes")
        header = json.loads(file.read(length))
    return sum(
        math.prod(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__" and isinstance(entry, Mapping)
    )


def _fast_proposals(config: RunConfig) -> int | None:
    if (fast := config.fast) is None:
        return None
    anchor, old = config.cycle.optimizer_steps * config.cycle.problems, fast.population
    rollouts = fast.metric_calls - old * anchor
    return sum(fitting_proposals(fast, rollouts, anchor, config.cycle.pool, old))


def _minutes(shape: ModelShape, rollouts: int, trained_rows: int) -> float:
    """At the reference's rates in either number format; docs/decisions.md says on what grounds."""
    sampled = rollouts * SAMPLED_TOKENS_PER_ROLLOUT / SAMPLED_TOKENS_PER_S
    trained = trained_rows * TRAINED_TOKENS_PER_ROW / TRAINED_TOKENS_PER_S
    return (START_S + (sampled + trained) * shape.parameters / REFERENCE_PARAMETERS) / 60


def _memory_gb(config: RunConfig, shape: ModelShape) -> float:
    """Weights, and what one forward and backward pass keeps.

    Per token a transformer block keeps about 16 vectors of its width and 4 of its inner width,
    the head about 3 of the vocabulary, in 4 bytes each.
    """
    weights = shape.parameters * BYTES_PER_WEIGHT[config.model.dtype]
    block = 16 * shape.hidden + 4 * shape.intermediate
    per_token = 4 * (shape.layers * block + 3 * shape.vocab)
    rows = config.slow.rows_per_forward if config.slow else 0
    return PROCESS_GB + (weights + rows * TRAINED_TOKENS_PER_ROW * per_token) / 1e9


def _note(config: RunConfig, shape: ModelShape | None) -> str:
    if shape is None:
        return (
            f"No minutes or memory: the size of '{shorten(config.model.name, 200)}' is not known "
            "before it is loaded. Local folders and the names of `fastslow models list` are known."
        )
    words = ["Minutes and memory are estimates for 2 CPU cores, short inputs and short answers"]
    if config.evaluation.test_examples is None:
        words.append(", without the evaluation: its test splits are taken whole")
    words.append(". Long inputs take several times as long.")
    if config.model.dtype == "bfloat16":
        words.append(" So does bfloat16 on processors without instructions for it.")
    return "".join(words)
