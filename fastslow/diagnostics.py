"""What else is measured beside scores after every stage: how far the policy moved, and how.

Each function measures one thing on the present policy, which it leaves as it is, and records it.
"""

from collections.abc import Iterator, Mapping

from torch import Tensor

from fastslow.drifting import measure_drift, record_drift
from fastslow.evaluation import accounted
from fastslow.events import NEUTRAL, FiguresEvent
from fastslow.measure.geometry import Deltas, measure_geometry
from fastslow.measure.neutral import NeutralPass, neutral_cross_entropy, read_neutral
from fastslow.measure.overlap import top_overlaps
from fastslow.measure.proxies import plasticity_proxies
from fastslow.parts import Run, stage_folder
from fastslow.policy.activations import record_activations
from fastslow.policy.adapters import adapter_tensors
from fastslow.policy.policy import seed_program
from fastslow.policy.weight_deltas import WeightDelta, weight_deltas
from fastslow.processes import is_leader
from fastslow.records import read_events

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
