"""Measures other than scores, taken after every stage: how far the policy moved, and how.

Each function measures one thing on the present policy, which it leaves as it is, and records it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

from fastslow.core.distributed import is_leader
from fastslow.core.errors import EvaluationError
from fastslow.core.prompts import PromptProgram
from fastslow.core.seeds import derive_seed
from fastslow.core.types import TokenIds
from fastslow.loop.evaluation import EvaluationCost, accounted, arm_scores
from fastslow.loop.run import Run, stage_folder
from fastslow.measure.base import Measure, Snapshot
from fastslow.measure.evaluator import validation_sample
from fastslow.measure.model.drift import (
    Drift,
    DriftInputs,
    draw,
    drift_on,
    kl_system,
    task_inputs,
)
from fastslow.measure.model.geometry import measure_geometry, top_overlaps
from fastslow.measure.model.magnitudes import Deltas
from fastslow.measure.model.neutral import (
    NeutralPass,
    neutral_cross_entropy,
    neutral_inputs,
    read_neutral,
)
from fastslow.measure.model.proxies import plasticity_proxies
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


def measure_drift(run: Run, cost: EvaluationCost, row: int) -> None:
    """Record KL in both directions, both entropies, and KL between what would be deployed.

    Under the deployed text and, where that is another one, under the seed text.
    """
    config, adapters = run.config, run.policy.adapters
    visited = tuple(dict.fromkeys(stage.task for stage in config.stages[:row]))
    if not config.evaluation.kl_examples:
        reason = "turned off by evaluation.kl_examples = 0"
        for name in visited:
            text = run.policy.live_program(run.tasks[name]).text_hash
            run.run_dir.events.append(DriftEvent(row, name, "kl_fst", None, reason, 0, text))
        return
    for name in filter(adapters.is_aside, visited):
        with adapters.serving(name):
            _measure(run, cost, row, task_cells(run, name))
    present = [name for name in visited if not adapters.is_aside(name)]
    cells = [cell for name in present for cell in task_cells(run, name)]
    if config.evaluation.neutral:
        prose = neutral_inputs(run.policy, config.evaluation.kl_examples)
        cells.append(DriftCell(NEUTRAL, "", ("without_text",), prose))
    _measure(run, cost, row, cells)


def task_cells(run: Run, name: str) -> list[DriftCell]:
    """Some of the task's test inputs under its deployed text, and under its seed text."""
    task, policy = run.tasks[name], run.policy
    examples = run.evaluator.test_sample(task)[: run.config.evaluation.kl_examples]
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


def _measure(run: Run, cost: EvaluationCost, row: int, cells: Sequence[DriftCell]) -> None:
    """Draw, compare and record; every cell under the same adapter."""
    if not cells:
        return
    policy, inputs = run.policy, [cell.inputs for cell in cells]
    seeds = [derive_seed(run.config.seed, "drift", row, cell.task) for cell in cells]
    tuned = draw(policy.sampler, inputs, seeds, adapter=True)
    base = base_draws(run, cost, cells)
    tuned_tokens = [[completion.token_ids for completion in completions] for completions in tuned]
    for cell, pair in zip(cells, drift_on(policy.scorer, inputs, tuned_tokens, base), strict=True):
        for text in cell.texts:
            record_drift(run, row, cell.task, cell.text_hash, text, vars(pair))
    deployed = [index for index, cell in enumerate(cells) if "with_text" in cell.texts]
    seed_inputs = {cell.task: cell.inputs for cell in cells if "without_text" in cell.texts}
    theirs = [seed_inputs[cells[index].task] for index in deployed]
    systems = kl_system(policy.scorer, [tuned[index] for index in deployed], theirs)
    for index, completions in zip(deployed, systems, strict=True):
        cell = cells[index]
        record_drift(run, row, cell.task, cell.text_hash, "with_text", {"kl_system": completions})


def base_draws(
    run: Run, cost: EvaluationCost, cells: Sequence[DriftCell]
) -> list[tuple[TokenIds, ...]]:
    """What the base draws on each cell: known from an earlier row, or drawn and recorded now."""
    missing = [cell for cell in cells if (cell.task, cell.text_hash) not in run.base_draws]
    seeds = [derive_seed(run.config.seed, "drift base", c.task, c.text_hash) for c in missing]
    draws = draw(run.policy.sampler, [cell.inputs for cell in missing], seeds, adapter=False)
    for cell, completions in zip(missing, draws, strict=True):
        cost.base_draws += len(completions)
        tokens = tuple(completion.token_ids for completion in completions)
        run.base_draws[cell.task, cell.text_hash] = tokens
        run.run_dir.events.append(BaseDrawsEvent(cell.task, cell.text_hash, tokens))
    return [run.base_draws[cell.task, cell.text_hash] for cell in cells]


def record_drift(
    run: Run,
    row: int,
    task: str,
    text_hash: str,
    text: WhichText,
    figures: Mapping[str, Drift],
) -> None:
    """Write figures down, one event each, under the name of the inputs they were measured on."""
    run.run_dir.events.append(
        *(
            DriftEvent(row, task, name, d.value, None, d.tokens, text_hash, text, d.se)
            for name, d in figures.items()
        )
    )


PROXY_EXAMPLES = 4
"""Test inputs of each task that proxies are measured on. Source: ours."""
OVERLAP_SHARE = 0.01
"""Of the weights, those that changed most: the masks that stages are compared by."""


def diagnose(run: Run, row: int) -> None:
    """Measure what the configuration asks for, on the policy that made row `row`.

    Neutral prose goes through the model once, for its cross-entropy and for the proxies.
    """
    config = run.config.evaluation
    prose: NeutralPass | None = None
    if config.neutral:
        with accounted(run, row, "neutral"):
            prose = read_neutral(run.policy)
            measure_neutral(run, row, prose)
    if config.proxies:
        with accounted(run, row, "proxies"):
            measure_proxies(run, row, prose or read_neutral(run.policy))
    for name, measure in run.measures.items() if is_leader() else ():
        with accounted(run, row, name) as cost:
            take_measure(run, cost, row, name, measure)
    if row == 0:
        return
    if config.geometry and run.config.slow is not None and is_leader():
        with accounted(run, row, "geometry"):
            measure_stage_geometry(run, row)
    with accounted(run, row, "drift") as cost:
        measure_drift(run, cost, row)


def take_measure(run: Run, cost: EvaluationCost, row: int, name: str, measure: Measure) -> None:
    """Record what one of the configured measures says of the policy that made row `row`.

    Raises:
        EvaluationError: It changed the policy.
    """
    policy = run.policy
    stages = [stage.task for stage in run.config.stages[:row]]
    visited, latest = tuple(dict.fromkeys(stages)), stages[-1] if stages else None
    scores = partial(arm_scores, run, cost, row)
    trained = row > 0 and run.config.slow is not None and run.config.stages[row - 1].slow
    has_change = row > 0 and run.config.slow is not None
    snapshot = Snapshot(
        policy,
        row,
        run.tasks,
        visited,
        latest,
        test_sample=run.evaluator.test_sample,
        scores=partial(scores, arm="live"),
        arm_scores=scores,
        validation_sample=validation_sample,
        stage_change=_stage_deltas(run, row - 1) if trained else None,
        change=partial(policy.adapters.deltas, None, None) if has_change else None,
        seed=derive_seed(run.config.seed, "measure", name, row),
    )
    before = policy.weights_fingerprint(), policy.texts_fingerprint()
    for measured in measure(snapshot):
        run.run_dir.events.append(
            FiguresEvent(row, name, measured.subject, measured.figures, measured.numbers)
        )
    if before != (policy.weights_fingerprint(), policy.texts_fingerprint()):
        raise EvaluationError(
            f"measure {name}: the policy is not the one it was given. A measure must leave adapter "
            "and texts as they are."
        )


def measure_neutral(run: Run, row: int, prose: NeutralPass) -> None:
    """Record cross-entropy of neutral prose with the adapter on and off.

    Row 0 is the base; a run that resumes from a later row reads with it once more.
    """
    if row == 0:
        run.neutral_base = prose.logprobs  # a fresh adapter computes what the base computes
        return
    if run.neutral_base is None:
        run.neutral_base = read_neutral(run.policy, adapter=False).logprobs
    prose_figures = neutral_cross_entropy(prose.logprobs, run.neutral_base)
    figures = {
        "neutral_ce_tuned": prose_figures.tuned,
        "neutral_ce_base": prose_figures.base,
        "neutral_ce_delta": prose_figures.delta,
    }
    record_drift(run, row, NEUTRAL, "", "without_text", figures)


def measure_proxies(run: Run, row: int, prose: NeutralPass) -> None:
    """Record ranks of features and sleeping units, on the same inputs in every row.

    Prose of no task, and some test questions of every task under its seed text: old, new and
    neutral inputs are in the same set.
    """
    policy = run.policy
    rows = [
        policy.renderer.prompt_ids(seed_program(task), example.question)
        for task in run.tasks.values()
        for example in run.evaluator.test_sample(task)[:PROXY_EXAMPLES]
    ]
    activations = prose.activations.joined(policy.activations(rows))
    proxies = plasticity_proxies(
        activations.singular_values(),
        activations.mean_abs,
        activations.active_share,
        activations.samples,
    )
    inputs = f"test inputs of {', '.join(run.tasks)} under their seed texts, and neutral prose"
    figures, numbers = tuple(proxies.values()), {"samples": activations.samples}
    run.run_dir.events.append(FiguresEvent(row, "proxies", inputs, figures, numbers))


def measure_stage_geometry(run: Run, row: int) -> None:
    """Record how the stage changed the weights; after the last stage, what the changes share."""
    stages, index = run.config.stages, row - 1
    if not stages[index].slow:
        return
    geometry = measure_geometry(_stage_deltas(run, index))
    numbers = {f"threshold_{share}": threshold for share, threshold in geometry.thresholds.items()}
    numbers["num_weights"] = geometry.num_weights
    figures = tuple(geometry.metrics.values())
    name = stage_name(index, stages[index].task)
    run.run_dir.events.append(FiguresEvent(row, "geometry", name, figures, numbers))
    if row < len(stages):
        return
    thresholds = {
        event.of: event.numbers[f"threshold_{OVERLAP_SHARE}"]
        for event in read_events(run.run_dir.events.path)
        if isinstance(event, FiguresEvent) and event.kind == "geometry"
    }
    deltas = {
        stage_name(position, stage.task): _stage_deltas(run, position)
        for position, stage in enumerate(stages)
        if stage_name(position, stage.task) in thresholds
    }
    for pair in top_overlaps(deltas, thresholds, OVERLAP_SHARE):
        pair_name = f"{pair.first} and {pair.second}"
        chance = {"chance": pair.chance}
        run.run_dir.events.append(FiguresEvent(row, "overlap", pair_name, (pair.jaccard,), chance))


def stage_name(index: int, task: str) -> str:
    """A stage as tables call it, e.g. `1 word_valence`."""
    return f"{index + 1} {task}"


def _stage_deltas(run: Run, index: int) -> Deltas:
    """What one stage changed: its adapter, less the one it started from."""
    slow = run.config.slow
    is_apart = slow is not None and slow.adapter_policy == "new-per-stage"
    is_merged = slow is not None and any(use.kind == "merge" for use in slow.remedies)
    starts_at_base = index == 0 or (is_apart and not is_merged)
    after = None if index == run.state.next_stage else stage_folder(run, index)
    before = None if starts_at_base else stage_folder(run, index - 1)
    return lambda: run.policy.adapters.deltas(after, before)
