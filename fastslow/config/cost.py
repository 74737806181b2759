"""What a run will cost, from its configuration alone: counts that are exact, and estimates.

Counts are those of `ledger.py`; `price.py` turns them into minutes and memory.
"""

import json
import math
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import TypeVar

from fastslow.channels.fast.settings import fitting_proposals
from fastslow.channels.slow.remedies.base import RemedyPrice
from fastslow.config.ledger import Ledger
from fastslow.config.lengths import Lengths, task_lengths
from fastslow.config.models import RunConfig
from fastslow.config.price import Price
from fastslow.core.files import read_json
from fastslow.core.text import shorten
from fastslow.measure.base import MeasurePrice
from fastslow.policy.calibration import Rates
from fastslow.task.definition import Task

P = TypeVar("P", RemedyPrice, MeasurePrice)

REFERENCE = Rates(12.0, 2.3e-3, 0.08, 6e-3, 6.5e-3, 1.0)
"""Of SmolLM2-135M in float32 on two cores, for machines where nothing was measured. Source: in
proportion to what `fastslow check --calibrate` measured, scaled to the runs in runs/reference."""
REFERENCE_PARAMETERS = 134.5e6
"""Size of that model; time grows in proportion."""
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


KNOWN_SHAPES = {
    "smollm2-135m-instruct": ModelShape(134_515_008, 30, 576, 1536, 49152),
    "tiny-random": ModelShape(26_880, 2, 32, 64, 259),
}
"""Models known by name, by what their weight files say."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a run spends."""

    slow_rollouts: int
    """Rollouts that weight updates are made from, 0 for a slow channel that draws none; and at
    most those that shrinking is scored on and remedies draw."""
    remedies: tuple[tuple[str, RemedyPrice], ...]
    """Each remedy by its name, in the order of the run, with the most that it takes in any stage; a
    user's own says so itself, or says nothing."""
    measures: tuple[tuple[str, MeasurePrice], ...]
    """Each measure by its name, in the order of the run, with the most that it takes in any row."""
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
    """Estimate; None when the model's size is unknown."""
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
            *(f"{f'remedy {name}':19}  {_price_words(price)}" for name, price in self.remedies),
            *(f"{f'measure {name}':19}  {_row_words(price)}" for name, price in self.measures),
            f"fast rollouts        {self.fast_rollouts:,}",
            f"new prompts a cycle  {proposals}",
            f"optimizer updates    {self.optimizer_steps:,}",
            f"evaluation cells     {self.evaluation_cells:,}",
            f"evaluation rollouts  {evaluated}",
            f"minutes              {minutes}",
            f"memory               {memory}",
            self.note,
        ]


def estimate_cost(
    config: RunConfig,
    tasks: Mapping[str, Task] | None = None,
    count: Callable[[str], int] | None = None,
    rates: Rates | None = None,
) -> Cost:
    """Count what a complete run will spend, and estimate minutes and memory.

    Rollouts and updates are exact, save that a fast channel, shrinking and a stage whose KL budget
    is spent may stop early.

    Args:
        config: The run.
        tasks: Its tasks by name, for lengths and sizes of splits; without them texts are short.
        count: Tokens of a text, as `TokenCounter.tokens` gives it.
        rates: Measured on this machine; without them those of two CPU cores.
    """
    ledger = Ledger(config, tasks or {})
    rollouts: Counter[str] = Counter()
    for entry in ledger.entries:
        rollouts[entry.part] += entry.rollouts
    slow = sum(rollouts.pop(part, 0) for part in ("slow", "shrink", "remedies"))
    fast = rollouts.pop("fast", 0) + rollouts.pop("choice", 0)
    if config.probe is not None:
        rollouts["probe"] = 2 * config.probe.seeds * ledger.curve(config.probe).rollouts
    is_counted = bool(tasks) or config.evaluation.test_examples is not None
    updates = sum(entry.part == "slow" for entry in ledger.entries)
    shape, lengths = model_shape(config.model.name), task_lengths(tasks or {}, count)
    price = Price(ledger, lengths, rates or reference_rates(config, shape)) if shape else None
    return Cost(
        slow_rollouts=slow,
        remedies=_most(ledger.remedy_prices, range(1, len(config.stages) + 1)),
        measures=_most(ledger.measure_prices, range(len(config.stages) + 1)),
        fast_rollouts=fast,
        fast_proposals=_fast_proposals(config),
        optimizer_steps=updates * config.cycle.optimizer_steps,
        evaluation_cells=(len(config.stages) + 1) * len(config.task_names),
        evaluation_rollouts=rollouts.total() if is_counted else None,
        minutes=price.run_s() / 60 if price else None,
        memory_gb=_memory_gb(price, shape) if price and shape else None,
        note=_note(config, shape, rates is not None, lengths),
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
        config = read_json(folder / "config.json")
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


def _most(
    prices: Callable[[int], Sequence[tuple[str, P]]], rows: Iterable[int]
) -> tuple[tuple[str, P], ...]:
    """The most of each figure over some rows, one price for each plug-in that has one there."""
    most = []
    for uses in zip(*filter(None, map(prices, rows)), strict=True):
        name, price = uses[0]
        figures = zip(*(astuple(row_price) for _, row_price in uses), strict=True)
        most.append((name, type(price)(*map(max, figures))))
    return tuple(most)


def _price_words(price: RemedyPrice) -> str:
    if price == RemedyPrice():
        return "no rows and no rollouts, by its own account"
    return (
        f"at most {price.rows:,} rows added to an update; at a stage's end {price.rollouts:,} "
        f"rollouts, {price.trained:,} rows learned from"
    )


def _row_words(price: MeasurePrice) -> str:
    work = f", and passes that take as long as {price.extra:,}" if price.extra else ""
    return f"at most {price.rollouts:,} rollouts a row{work}"


def _fast_proposals(config: RunConfig) -> int | None:
    if (fast := config.fast) is None:
        return None
    anchor, old = config.cycle.optimizer_steps * config.cycle.problems, fast.population
    rollouts = fast.metric_calls - old * anchor
    return sum(fitting_proposals(fast, rollouts, anchor, config.cycle.pool, old))


def reference_rates(config: RunConfig, shape: ModelShape) -> Rates:
    """`REFERENCE`, for a model of this size; docs/decisions.md says why in either format."""
    factor = shape.parameters / REFERENCE_PARAMETERS
    return replace(REFERENCE.scaled(factor), loaded_gb=PROCESS_GB + weights_gb(config, shape))


def weights_gb(config: RunConfig, shape: ModelShape, processes: int = 1) -> float:
    """The base's weights in each process, in 10^9 bytes, the layer in work included.

    Layers are shared out by `engine.sharding`; embeddings and the head, two matrices at most, are
    in every process. Without torch `model.dtype: auto` is taken for what it is on `model.device`.
    """
    dtype = config.model.dtype
    if dtype == "auto":
        dtype = "bfloat16" if config.model.device == "cuda" else "float32"
    layers = max(0, shape.parameters - 2 * shape.vocab * shape.hidden)
    spared = 0.0
    if config.engine.sharding != "none":
        spared = max(0.0, layers * (1 - 1 / processes - 1 / shape.layers))
    return (shape.parameters - spared) * BYTES_PER_WEIGHT[dtype] / 1e9


def _memory_gb(price: Price, shape: ModelShape) -> float:
    """The loaded model, and what its biggest forward and backward pass keeps.

    Per token a transformer block keeps about 16 vectors of its width and 4 of its inner width;
    per token of an answer the head keeps about 3 of the vocabulary, in 4 bytes each.
    """
    tokens, predicted = price.pass_tokens()
    block = 16 * shape.hidden + 4 * shape.intermediate
    pass_bytes = 4 * (tokens * shape.layers * block + 3 * predicted * shape.vocab)
    return price.rates.loaded_gb + pass_bytes / 1e9


def _note(
    config: RunConfig, shape: ModelShape | None, is_measured: bool, lengths: Mapping[str, Lengths]
) -> str:
    if shape is None:
        return (
            f"No minutes or memory: the size of '{shorten(config.model.name, 200)}' is not known "
            "before it is loaded. Local folders and the names of `fastslow models list` are known."
        )
    words = ["Minutes and memory are estimates "]
    words.append("from rates measured here" if is_measured else "for 2 CPU cores")
    words.append(", and the lengths of the tasks' texts" if lengths else ", for short texts")
    if config.evaluation.test_examples is None and not lengths:
        words.append(", without the evaluation: its test splits are taken whole")
    words.append(".")
    if config.engine.sharding != "none":
        each = (f"{weights_gb(config, shape, n):.2g} in each of {n}" for n in (2, 8))
        words.append(
            f" engine.sharding shares the weights among the processes that torchrun starts: "
            f"{weights_gb(config, shape):.2g} GB in one alone, {', '.join(each)}."
        )
    if not lengths:
        words.append(" Long inputs take several times as long.")
    if not is_measured:
        words.append(" To measure this machine: fastslow check --calibrate FILE.")
        if config.model.dtype == "bfloat16":
            words.append(" Processors without instructions for bfloat16 take several times longer.")
    return "".join(words)
