"""Records how far the policy that made a row has moved from the base, on inputs new, old, neutral.

New is the stage's own task, old are those of earlier stages; a task that no stage has visited yet
is neither. What the base draws follows from text and inputs alone, so it is drawn once in a run and
kept in the records, where a resumed run finds it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fastslow.evaluation import Spent
from fastslow.events import NEUTRAL, BaseDrawsEvent, DriftEvent
from fastslow.measure.drift import (
    Drift,
    DriftInputs,
    DriftPair,
    draw,
    drift_on,
    kl_system,
    task_inputs,
)
from fastslow.measure.neutral import neutral_inputs
from fastslow.parts import Run
from fastslow.policy.policy import seed_program
from fastslow.prompts import PromptProgram
from fastslow.seeds import derive_seed
from fastslow.types import TokenIds

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
