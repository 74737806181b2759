"""What else is measured beside scores after every stage: how far the policy moved, and how.

Each function measures one thing on the present policy, which it leaves as it is, and records it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

from fastslow.core.distributed import is_leader
from fastslow.core.prompts import PromptProgram
from fastslow.core.seeds import derive_seed
from fastslow.core.types import TokenIds
from fastslow.loop.evaluation import Spent, accounted
from fastslow.loop.run import Run, stage_folder
from fastslow.measure.model.drift import (
    Drift,
    DriftInputs,
    DriftPair,
    draw,
    drift_on,
    kl_system,
    task_inputs,
)
from fastslow.measure.model.geometry import Deltas, measure_geometry, top_overlaps
from fastslow.measure.model.neutral import (
    NeutralPass,
    neutral_cross_entropy,
    neutral_inputs,
    read_neutral,
)
from fastslow.measure.model.proxies import plasticity_proxies
from fastslow.policy.activations import record_activations
from fastslow.policy.adapter.deltas import WeightDelta, weight_deltas
from fastslow.policy.adapter.lora import adapter_tensors
from fastslow.policy.policy import seed_program
from fastslow.records.events import NEUTRAL, BaseDrawsEvent, DriftEvent, FiguresEvent
from fastslow.records.jsonl import read_events

WhichText: TypeAlias = Literal["with_text", "without_text"]


@dataclass(frozen=True)
class DriftCell:
    """Inputs under one text, and what figures measured on them are recorded as."""

    task: str
    """`NEUTRAL` for prose of no task."""
    text_hash: str
    """Empty where there is no text."""
    texts: tuple[WhichText, ...]
    """Both, as long as the deployed text is the seed text."""
    inputs: DriftInputs


def measure_drift(parts: Run, spent: Spent, row: int) -> None:
    """Record KL in both directions, both entropies, and KL between what would be deployed.

    Under the deployed text and, where that is another one, under the seed text.
    """
    config, adapters = parts.config, parts.policy.adapters
    visited = tuple(dict.fromkeys(stage.task for stage in config.stages[:row]))
    if not config.evaluation.kl_examples:
        reason = "turned off by evaluation.kl_examples = 0"
        for name in visited:
            text = parts.policy.live_program(parts.tasks[name]).text_hash
            parts.run_dir.events.append(DriftEvent(row, name, "kl_fst", None, reason, 0, text))
        return
    for name in filter(adapters.is_aside, visited):
        with adapters.of(name):
            _measure(parts, spent, row, task_cells(parts, name))
    present = [name for name in visited if not adapters.is_aside(name)]
    cells = [cell for name in present for cell in task_cells(parts, name)]
    if config.evaluation.neutral:
        prose = neutral_inputs(parts.policy, config.evaluation.kl_examples)
        cells.append(DriftCell(NEUTRAL, "", ("without_text",), prose))
    _measure(parts, spent, row, cells)


def task_cells(parts: Run, name: str) -> list[DriftCell]:
    """Some of the task's test inputs under its deployed text, and under its seed text."""
    task, policy = parts.tasks[name], parts.policy
    examples = parts.evaluator.test_sample(task)[: parts.config.evaluation.kl_examples]
    texts: dict[WhichText, PromptProgram] = {
        "with_text": policy.live_program(task),
        "without_text": seed_program(task),
    }
    return [
        DriftCell(
            name,
            text_hash,
            tuple(which for which, text in texts.items() if text.text_hash == text_hash),
            task_inputs(policy, task, program, examples),
        )
        for text_hash, program in {text.text_hash: text for text in texts.values()}.items()
    ]


def _measure(parts: Run, spent: Spent, row: int, cells: Sequence[DriftCell]) -> None:
    """Draw, compare and record; every cell under the same adapter."""
    if not cells:
        return
    engine, inputs = parts.policy.engine, [cell.inputs for cell in cells]
    seeds = [derive_seed(parts.config.seed, "drift", row, cell.task) for cell in cells]
    tuned = draw(engine, inputs, seeds, adapter=True)
    base = base_draws(parts, spent, cells)
    drawn = [[completion.token_ids for completion in found] for found in tuned]
    for cell, pair in zip(cells, drift_on(engine, inputs, drawn, base), strict=True):
        for text in cell.texts:
            record_drift(parts, row, cell.task, cell.text_hash, text, _figures(pair))
        if "with_text" in cell.texts:
            figures = {"kl_fst": pair.kl_fst.value, "kl_razor": pair.kl_razor.value}
            logged = {f"{name}/{cell.task}": value for name, value in figures.items()}
            parts.tracker.log(logged, step=row)
    deployed = [at for at, cell in enumerate(cells) if "with_text" in cell.texts]
    seed_inputs = {cell.task: cell.inputs for cell in cells if "without_text" in cell.texts}
    theirs = [seed_inputs[cells[at].task] for at in deployed]
    systems = kl_system(engine, [tuned[at] for at in deployed], theirs)
    for at, found in zip(deployed, systems, strict=True):
        cell = cells[at]
        record_drift(parts, row, cell.task, cell.text_hash, "with_text", {"kl_system": found})


def base_draws(parts: Run, spent: Spent, cells: Sequence[DriftCell]) -> list[tuple[TokenIds, ...]]:
    """What the base draws on each cell: known from an earlier row, or drawn and recorded now."""
    missing = [cell for cell in cells if (cell.task, cell.text_hash) not in parts.base_draws]
    seeds = [derive_seed(parts.config.seed, "drift base", c.task, c.text_hash) for c in missing]
    found = draw(parts.policy.engine, [cell.inputs for cell in missing], seeds, adapter=False)
    for cell, completions in zip(missing, found, strict=True):
        spent.base_draws += len(completions)
        tokens = tuple(completion.token_ids for completion in completions)
        parts.base_draws[cell.task, cell.text_hash] = tokens
        parts.run_dir.events.append(BaseDrawsEvent(cell.task, cell.text_hash, tokens))
    return [parts.base_draws[cell.task, cell.text_hash] for cell in cells]


def record_drift(
    parts: Run,
    row: int,
    task: str,
    text_hash: str,
    text: WhichText,
    figures: Mapping[str, Drift],
) -> None:
    """Write figures down, one event each, under the name of the inputs they were measured on."""
    parts.run_dir.events.append(
        *(
            DriftEvent(row, task, name, d.value, None, d.tokens, text_hash, text, d.se)
            for name, d in figures.items()
        )
    )


def _figures(pair: DriftPair) -> dict[str, Drift]:
    return {
        "kl_fst": pair.kl_fst,
        "kl_razor": pair.kl_razor,
        "entropy": pair.entropy,
        "entropy_base": pair.entropy_base,
    }


PROXY_EXAMPLES = 4
"""Test inputs of each task that proxies are measured on. Source: ours."""
OVERLAP_SHARE = 0.01
"""Of the weights, those that changed most: the masks that stages are compared by."""


def diagnose(parts: Run, row: int) -> None:
    """Measure what the configuration asks for, on the policy that made row `row`.

    Neutral prose goes through the model once, for its cross-entropy and for the proxies.
    """
    config = parts.config.evaluation
    prose: NeutralPass | None = None
    if config.neutral:
        with accounted(parts, row, "neutral"):
            prose = read_neutral(parts.policy)
            measure_neutral(parts, row, prose)
    if config.proxies:
        with accounted(parts, row, "proxies"):
            measure_proxies(parts, row, prose or read_neutral(parts.policy))
    if row == 0:
        return
    if config.geometry and parts.config.slow is not None and is_leader():
        with accounted(parts, row, "geometry"):
            measure_stage_geometry(parts, row)
    with accounted(parts, row, "drift") as spent:
        measure_drift(parts, spent, row)


def measure_neutral(parts: Run, row: int, prose: NeutralPass) -> None:
    """Record cross-entropy of neutral prose with the adapter on and off.

    Row 0 is the base; a run that goes on from a later row reads with it once more.
    """
    if row == 0:
        parts.neutral_base = prose.logprobs  # a fresh adapter computes what the base computes
        return
    if parts.neutral_base is None:
        parts.neutral_base = read_neutral(parts.policy, adapter=False).logprobs
    found = neutral_cross_entropy(prose.logprobs, parts.neutral_base)
    figures = {
        "neutral_ce_tuned": found.tuned,
        "neutral_ce_base": found.base,
        "neutral_ce_delta": found.delta,
    }
    record_drift(parts, row, NEUTRAL, "", "without_text", figures)
    parts.tracker.log({"neutral_ce_delta": found.delta.value}, step=row)


def measure_proxies(parts: Run, row: int, prose: NeutralPass) -> None:
    """Record ranks of features and sleeping units, on the same inputs in every row.

    Prose of no task, and some test questions of every task under its seed text: old, new and
    neutral inputs are in the same set.
    """
    policy = parts.policy
    rows = [
        policy.renderer.prompt_ids(seed_program(task), example.question)
        for task in parts.tasks.values()
        for example in parts.evaluator.test_sample(task)[:PROXY_EXAMPLES]
    ]
    found = prose.activations.joined(record_activations(policy.model, rows))
    proxies = plasticity_proxies(
        found.singular_values(), found.mean_abs, found.active_share, found.samples
    )
    inputs = f"test inputs of {', '.join(parts.tasks)} under their seed texts, and neutral prose"
    parts.run_dir.events.append(
        FiguresEvent(row, "proxies", inputs, tuple(proxies.values()), {"samples": found.samples})
    )


def measure_stage_geometry(parts: Run, row: int) -> None:
    """Record how the stage changed the weights; after the last stage, what the changes share."""
    stages, index = parts.config.stages, row - 1
    if not stages[index].slow:
        return
    geometry = measure_geometry(_stage_deltas(parts, index))
    numbers = {f"threshold_{share}": found for share, found in geometry.thresholds.items()}
    numbers["num_weights"] = geometry.num_weights
    figures = tuple(geometry.metrics.values())
    name = stage_name(index, stages[index].task)
    parts.run_dir.events.append(FiguresEvent(row, "geometry", name, figures, numbers))
    if row < len(stages):
        return
    thresholds = {
        event.of: event.numbers[f"threshold_{OVERLAP_SHARE}"]
        for event in read_events(parts.run_dir.events.path)
        if isinstance(event, FiguresEvent) and event.kind == "geometry"
    }
    deltas = {
        stage_name(at, stage.task): _stage_deltas(parts, at)
        for at, stage in enumerate(stages)
        if stage_name(at, stage.task) in thresholds
    }
    for pair in top_overlaps(deltas, thresholds, OVERLAP_SHARE):
        of = f"{pair.first} and {pair.second}"
        chance = {"chance": pair.chance}
        parts.run_dir.events.append(FiguresEvent(row, "overlap", of, (pair.jaccard,), chance))


def stage_name(index: int, task: str) -> str:
    """A stage as tables call it, e.g. `1 word_valence`."""
    return f"{index + 1} {task}"


def _stage_deltas(parts: Run, index: int) -> Deltas:
    """What one stage changed: its adapter, less the one it started from."""
    from safetensors.torch import load_file

    def kept(stage: int) -> Mapping[str, Tensor]:
        path = stage_folder(parts, stage) / "adapter_model.safetensors"
        tensors: dict[str, Tensor] = load_file(path, device=str(parts.policy.model.device))
        return tensors

    model, slow = parts.policy.model, parts.config.slow
    is_present = index == parts.state.next_stage
    starts_at_base = index == 0 or (slow is not None and slow.adapter_policy == "new-per-stage")

    def deltas() -> Iterator[WeightDelta]:
        after = adapter_tensors(model) if is_present else kept(index)
        return weight_deltas(model, after, None if starts_at_base else kept(index - 1))

    return deltas
