"""What a run will cost, from its configuration alone: counts that are exact, and estimates.

Counts follow from the cycle (design: T updates of Q problems with G rollouts each); minutes and
memory are estimates for two CPU cores, from the model's size. No model is loaded and no torch
imported. Called by `fastslow check`.

Minutes take every input for short, since no data is read: a question of a few words, an answer of a
word. Runs on news items take several times as long; see docs/decisions.md.
"""

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fastslow.channels.fast.settings import fitting_proposals
from fastslow.config.models import RunConfig, StageConfig
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
"""Tokens of a training batch per row (a rollout, or a gold answer under one text), shared prefixes
counted once. Source: fitted, so that an update of 8 problems x 8 rollouts takes the 8 s it was
measured to take."""
START_S = 30.0
"""Imports, loading the model, reports. Source: our guess, on the high side."""
PROCESS_GB = 1.0
"""Interpreter and libraries before any weight. Source: our guess, on the high side."""
SHRINK_FACTORS = 9
"""Factors that shrinking tries at most. Source: `channels.minimal.FACTORS`; a test compares."""
GRPO_GROUP = 8
"""Rollouts of a problem in a probe whose run draws none. Source: the default of slow.group; a test
compares."""
NEUTRAL_PASSAGES = 16
"""Passages of neutral prose. Source: `measure.neutral`; a test compares."""
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
    """Rollouts the fast channel scores texts with, the choice of the text to deploy included."""
    fast_proposals: int | None
    """New texts that a fast phase pays for at least; None without a fast channel."""
    optimizer_steps: int
    """Weight updates."""
    evaluation_cells: int
    """Cells of the score matrix: (stages + 1) x tasks."""
    evaluation_rollouts: int | None
    """Completions scored or measured at most: what changed neither weights nor text is not drawn
    again. None when whole test splits are taken."""
    minutes: float | None
    """Estimate for 2 CPU cores; None when the model's size is unknown."""
    memory_gb: float | None
    """Estimate of the peak, in 10^9 bytes; None when the model's size is unknown."""
    note: str
    """What the estimates rest on, or why there are none."""

    @property
    def _proposals(self) -> str:
        return "none" if self.fast_proposals is None else f"at least {self.fast_proposals:,}"

    def lines(self) -> list[str]:
        """The figures as a person reads them, one a line."""
        unknown = "unknown: the whole test split"
        evaluated = unknown if self.evaluation_rollouts is None else f"{self.evaluation_rollouts:,}"
        minutes = "unknown" if self.minutes is None else f"about {self.minutes:.0f}"
        memory = "unknown" if self.memory_gb is None else f"about {self.memory_gb:.1f} GB"
        return [
            f"slow rollouts        {self.slow_rollouts:,}",
            f"fast rollouts        {self.fast_rollouts:,}",
            f"new texts a cycle    {self._proposals}",
            f"optimizer updates    {self.optimizer_steps:,}",
            f"evaluation cells     {self.evaluation_cells:,}",
            f"evaluation rollouts  {evaluated}",
            f"minutes              {minutes}",
            f"memory               {memory}",
            self.note,
        ]


def estimate_cost(config: RunConfig) -> Cost:
    """Count what `config` will spend, and estimate minutes and memory on 2 CPU cores.

    Args:
        config: A complete run, as `load_config` returns it.

    Returns:
        The cost. Rollouts and updates are exact, save that a fast channel, shrinking and a stage
        whose KL budget is spent may stop early.
    """
    slow_cycles = sum(stage.cycles for stage in config.stages if _is_slow(config, stage))
    updates = slow_cycles * config.cycle.optimizer_steps
    problems = updates * config.cycle.problems
    slow_rollouts = problems * (config.slow.rollouts_per_problem if config.slow else 0)
    trained_rows = problems * (config.slow.rows_per_problem(config.num_texts) if config.slow else 0)
    slow_rollouts += sum(_shrink_rollouts(config, at) for at in range(len(config.stages)))
    fast_rollouts = sum(_fast_rollouts(config, at) for at in range(len(config.stages)))
    cells = (len(config.stages) + 1) * len(config.task_names)
    evaluation_rollouts = _evaluation_rollouts(config, cells)
    shape = model_shape(config.model.name)
    drawn = slow_rollouts + fast_rollouts + (evaluation_rollouts or 0)
    seconds = _seconds(drawn, trained_rows)
    return Cost(
        slow_rollouts=slow_rollouts,
        fast_rollouts=fast_rollouts,
        fast_proposals=_fast_proposals(config),
        optimizer_steps=updates,
        evaluation_cells=cells,
        evaluation_rollouts=evaluation_rollouts,
        minutes=_minutes(shape, seconds) if shape else None,
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


def _is_slow(config: RunConfig, stage: StageConfig) -> bool:
    return config.slow is not None and stage.slow


def _shrink_rollouts(config: RunConfig, index: int) -> int:
    """At most: start, before and every factor; KL and earlier tasks before and after."""
    if config.slow is None or config.slow.shrink is None or not config.stages[index].slow:
        return 0
    evaluation, stages = config.evaluation, config.stages[:index]
    earlier = {stage.task for stage in stages if stage.slow} - {config.stages[index].task}
    others = len(earlier) if config.slow.adapter_policy == "continue" else 0
    scored = 2 + SHRINK_FACTORS + 2 * others
    kl_examples = min(evaluation.kl_examples, evaluation.validation_examples)
    return scored * evaluation.validation_examples + 2 * kl_examples


def _fast_rollouts(config: RunConfig, index: int) -> int:
    """Evolving, and choosing among the texts that this stage or an earlier visit evolved."""
    if config.fast is None:
        return 0
    stage = config.stages[index]
    visits = [visit for visit in config.stages[: index + 1] if visit.task == stage.task]
    evolving = stage.cycles * config.fast.metric_calls if stage.fast else 0
    choosing = config.fast.population * config.evaluation.validation_examples
    return evolving + choosing * any(visit.fast for visit in visits)


def _fast_proposals(config: RunConfig) -> int | None:
    if config.fast is None:
        return None
    anchor = config.cycle.optimizer_steps * config.cycle.problems
    return sum(fitting_proposals(config.fast, anchor, config.fast.metric_calls))


def _evaluation_rollouts(config: RunConfig, cells: int) -> int | None:
    evaluation = config.evaluation
    per_cell = evaluation.test_examples
    if per_cell is None:
        return None
    repeats = (evaluation.base_repeats - 1) * len(config.task_names)
    split = 2 * len(config.stages) if evaluation.channel_split else 0
    points = sum(len(config.phases(i)) - 1 for i in range(len(config.stages)))
    return (
        (cells + repeats + split) * per_cell
        + _drift_draws(config, per_cell)
        + points * min(per_cell, evaluation.curve_examples)
        + _replayed_texts(config) * per_cell
        + _reoptimizing(config, per_cell)
        + _probing(config)
    )


def _probing(config: RunConfig) -> int:
    """Validation at every point of every curve, from a stage and from the base; and rollouts."""
    probe = config.probe
    if probe is None:
        return 0
    points = 1 + math.ceil(probe.updates / probe.score_every)
    group = config.slow.rollouts_per_problem if config.slow else 0
    drawn = probe.updates * config.cycle.problems * (group or GRPO_GROUP)
    trained = drawn if probe.kind == "grpo" else 0
    return 2 * probe.seeds * (points * config.evaluation.validation_examples + trained)


def _drift_draws(config: RunConfig, per_cell: int) -> int:
    """At most: tuned, under two texts per task visited; the base, once per text; and neutral."""
    stages = [stage.task for stage in config.stages]
    tuned = 2 * sum(len(set(stages[: i + 1])) for i in range(len(stages)))
    base = len(set(stages)) + len(stages)  # seed texts, and the one each stage deploys
    drawn = (tuned + base) * min(per_cell, config.evaluation.kl_examples)
    neutral = min(NEUTRAL_PASSAGES, config.evaluation.kl_examples)
    return drawn + ((len(stages) + 1) * neutral if config.evaluation.neutral else 0)


def _replayed_texts(config: RunConfig) -> int:
    """Cells under the seed text of tasks visited before, where the channel split has none."""
    evaluation = config.evaluation
    if "seed" not in evaluation.prompt_policies:
        return 0
    tasks = [stage.task for stage in config.stages]
    visited = sum(len(set(tasks[: row + 1])) for row in range(len(tasks)))
    return visited - len(tasks) if evaluation.channel_split else visited


def _reoptimizing(config: RunConfig, per_cell: int) -> int:
    """One fast phase and the choice of a text for each earlier task, and a cell under it."""
    if not config.evaluation.reoptimize or config.fast is None:
        return 0
    earlier = {stage.task for stage in config.stages} - {config.stages[-1].task}
    choosing = config.fast.population * config.evaluation.validation_examples
    return len(earlier) * (config.fast.metric_calls + choosing + per_cell)


def _seconds(rollouts: int, trained_rows: int) -> float:
    """Time at the reference size: every rollout is sampled, the slow channel's rows trained on."""
    sampled = rollouts * SAMPLED_TOKENS_PER_ROLLOUT
    trained = trained_rows * TRAINED_TOKENS_PER_ROW
    return sampled / SAMPLED_TOKENS_PER_S + trained / TRAINED_TOKENS_PER_S


def _minutes(shape: ModelShape, seconds: float) -> float:
    """Of either number format: see "What the cost estimate rests on" in docs/decisions.md."""
    return (START_S + seconds * shape.parameters / REFERENCE_PARAMETERS) / 60


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
