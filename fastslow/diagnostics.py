"""What else is measured beside scores after every stage: how far the policy moved, and how.

Each function measures one thing on the present policy, which it leaves as it is, and records it.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

from torch import Tensor

from fastslow.evaluation import Spent, accounted
from fastslow.measure.drift import Drift, DriftPair, drift_on, drift_with_and_without_text
from fastslow.measure.geometry import Deltas, measure_geometry
from fastslow.measure.neutral import (
    NEUTRAL_PASSAGES,
    neutral_cross_entropy,
    neutral_ids,
    neutral_logprobs,
    neutral_prompts,
)
from fastslow.measure.overlap import top_overlaps
from fastslow.measure.proxies import plasticity_proxies
from fastslow.parts import Run, stage_folder
from fastslow.policy.activations import record_activations
from fastslow.policy.adapters import adapter_tensors
from fastslow.policy.policy import seed_program
from fastslow.policy.weight_deltas import WeightDelta, weight_deltas
from fastslow.processes import is_leader
from fastslow.records import NEUTRAL, DriftEvent, FiguresEvent, read_events
from fastslow.seeds import derive_seed
from fastslow.task import Task

NEUTRAL_TOKENS = 16
"""Limit of a continuation of neutral prose. Source: ours."""
PROXY_EXAMPLES = 4
"""Test inputs of each task that proxies are measured on. Source: ours."""
PROXY_PASSAGES = 8
"""Neutral passages that proxies are measured on. Source: ours."""
OVERLAP_SHARE = 0.01
"""Of the weights, those that changed most: the masks that stages are compared by."""


def diagnose(parts: Run, row: int) -> None:
    """Measure what the configuration asks for, on the policy that made row `row`."""
    config = parts.config.evaluation
    if config.proxies:
        with accounted(parts, row, "proxies"):
            measure_proxies(parts, row)
    if row == 0:
        return
    if config.geometry and parts.config.slow is not None and is_leader():
        with accounted(parts, row, "geometry"):
            measure_stage_geometry(parts, row)
    with accounted(parts, row, "drift") as spent:
        for task in parts.tasks.values():
            with parts.policy.adapters.of(task.name):
                measure_drift(parts, spent, task, row)
    if config.neutral:
        with accounted(parts, row, "neutral") as spent:
            measure_neutral(parts, spent, row)


def measure_drift(parts: Run, spent: Spent, task: Task, row: int) -> None:
    """Record KL in both directions and both entropies on some of the task's test inputs.

    Under the deployed text and, where that is another one, under the seed text.
    """
    program, seed_text = parts.policy.live_program(task), seed_program(task)
    inputs = parts.evaluator.test_sample(task)[: parts.config.evaluation.kl_examples]
    if not inputs:
        reason = "turned off by evaluation.kl_examples = 0"
        event = DriftEvent(row, task.name, "kl_fst", None, reason, 0, program.text_hash)
        parts.run_dir.events.append(event)
        return
    seed = derive_seed(parts.config.seed, "drift", row, task.name)
    pairs = drift_with_and_without_text(parts.policy, task, program, inputs, seed)
    hashes = {"with_text": program.text_hash, "without_text": seed_text.text_hash}
    spent.base_draws += len(set(hashes.values())) * len(inputs)
    for text in ("with_text", "without_text"):
        _record(parts, row, task.name, hashes[text], text, _figures(pairs[text]))
    both = pairs["with_text"]
    figures = {"kl_fst": both.kl_fst, "kl_razor": both.kl_razor}
    logged = {f"{name}/{task.name}": drift.value for name, drift in figures.items()}
    parts.tracker.log(logged, step=row)


def measure_neutral(parts: Run, spent: Spent, row: int) -> None:
    """Record cross-entropy of neutral prose with the adapter on and off, and KL on its beginnings.

    The base's half of the cross-entropy is computed once in a process.
    """
    policy = parts.policy
    if parts.neutral_base is None:
        parts.neutral_base = neutral_logprobs(policy, adapter=False)
    found = neutral_cross_entropy(policy, base=parts.neutral_base)
    figures = {
        "neutral_ce_tuned": found.tuned,
        "neutral_ce_base": found.base,
        "neutral_ce_delta": found.delta,
    }
    prompts = neutral_prompts(policy)[: parts.config.evaluation.kl_examples]
    if prompts:
        seed = derive_seed(parts.config.seed, "drift", row, NEUTRAL)
        figures |= _figures(drift_on(policy.engine, prompts, NEUTRAL_TOKENS, seed))
        spent.base_draws += len(prompts)
    _record(parts, row, NEUTRAL, "", "without_text", figures)
    parts.tracker.log({"neutral_ce_delta": found.delta.value}, step=row)


def _figures(pair: DriftPair) -> dict[str, Drift]:
    return {
        "kl_fst": pair.kl_fst,
        "kl_razor": pair.kl_razor,
        "entropy": pair.entropy,
        "entropy_base": pair.entropy_base,
    }


def _record(
    parts: Run,
    row: int,
    inputs: str,
    text_hash: str,
    text: Literal["with_text", "without_text"],
    figures: Mapping[str, Drift],
) -> None:
    parts.run_dir.events.append(
        *(
            DriftEvent(row, inputs, name, d.value, None, d.tokens, text_hash, text, d.se)
            for name, d in figures.items()
        )
    )


def measure_proxies(parts: Run, row: int) -> None:
    """Record ranks of features and sleeping units, on the same inputs in every row.

    Some test questions of every task under its seed text, and prose of no task: old, new and
    neutral inputs are in the same set.
    """
    policy = parts.policy
    rows = [
        policy.renderer.prompt_ids(seed_program(task), example.question)
        for task in parts.tasks.values()
        for example in parts.evaluator.test_sample(task)[:PROXY_EXAMPLES]
    ]
    rows += neutral_ids(policy, NEUTRAL_PASSAGES[:PROXY_PASSAGES])
    found = record_activations(policy.model, rows)
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
