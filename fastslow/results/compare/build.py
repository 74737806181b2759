"""Reads run folders and holds them against the first; no model is needed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastslow.core.errors import CheckpointError, ConfigError
from fastslow.core.files import read_json
from fastslow.core.types import Json
from fastslow.records.events import TextEvent
from fastslow.records.jsonl import read_events, read_scores
from fastslow.results.compare.contrasts import (
    Pair,
    Side,
    cost_contrasts,
    drift_contrasts,
    metric_contrasts,
    task_contrasts,
)
from fastslow.results.compare.data import (
    QUANTITIES,
    Arm,
    ArmComparison,
    ArmRun,
    Comparison,
    ScoreLine,
)
from fastslow.results.report.build import build_report
from fastslow.results.report.cells import Cell, CellTable
from fastslow.results.report.sections.tasks import Tasks

PLACES = frozenset({"name", "runs_dir", "tracking", "seed"})
"""Top-level keys that say where things go, and the seed; runs that share all others are an arm."""


def compare_runs(paths: Sequence[Path]) -> Comparison:
    """Compare runs, example by example where they were scored on the same.

    Runs whose configurations differ in nothing but the seed are one arm, unless that would leave
    one arm only; then each run is its own.

    Args:
        paths: Run folders, the baseline first; only read.

    Raises:
        ConfigError: Fewer than two folders, or one given twice.
        CheckpointError: One is no run folder, or a record in it is damaged.
        EvaluationError: Recorded scores cannot form a matrix.
    """
    if len(paths) < 2:
        raise ConfigError(
            f"fastslow compare: needs two run folders at least, got {len(paths)}. The first is the "
            "baseline: fastslow compare BASELINE RUN"
        )
    if len({path.resolve() for path in paths}) < len(paths):
        raise ConfigError(
            "fastslow compare: a run folder is given twice. A run does not differ from itself; "
            "give each folder once."
        )
    sides = [_read(path, name) for path, name in zip(paths, _names(paths), strict=True)]
    groups = _arms(sides)
    arms = tuple(Arm(_arm_name(group), tuple(s.run for s in group)) for group in groups)
    tasks = tuple(dict.fromkeys(task for side in sides for task in side.run.report.tasks))
    return Comparison(
        arms=arms,
        tasks=tasks,
        settings=_settings(groups),
        comparisons=tuple(
            _compare(arm.name, groups[0], group, tasks)
            for arm, group in zip(arms[1:], groups[1:], strict=True)
        ),
        scores=tuple(
            line
            for arm, group in zip(arms, groups, strict=True)
            for side in group
            for line in _lines(arm.name, side)
        ),
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """Names of the folders; with as much of their paths as tells them apart."""
    resolved = [path.resolve() for path in paths]
    for depth in range(1, max(len(path.parts) for path in resolved)):
        names = ["/".join(path.parts[-depth:]) for path in resolved]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in resolved]


def _read(path: Path, name: str) -> Side:
    report = build_report(path)
    texts = [e for e in read_events(path / "events.jsonl") if isinstance(e, TextEvent)]
    first_text = {event.task: event.stage + 1 for event in reversed(texts)}
    table = CellTable(read_scores(path / "scores.jsonl"), report.stage_tasks, first_text)
    try:
        config: dict[str, Any] = read_json(path / "config.json")
        seed = int(config["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path / 'config.json'}: cannot be read, got {error!r}. Give a folder that "
            "`fastslow train` made."
        ) from error
    return Side(ArmRun(name, seed, report), table, dict(_leaves(config, ())))


def _leaves(value: Json, path: tuple[str, ...]) -> Iterator[tuple[str, Json]]:
    """Every value of a configuration by its dotted key; stages and other lists by position."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list) and value:
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, str(index)))
    else:
        yield ".".join(path), value


def _recipe(side: Side) -> str:
    """Everything of a configuration that makes an arm, as one text."""
    kept = {key: v for key, v in side.config.items() if key.split(".")[0] not in PLACES}
    return json.dumps(kept, sort_keys=True)


def _arms(sides: Sequence[Side]) -> list[list[Side]]:
    groups: list[list[Side]] = []
    for side in sides:
        for group in groups:
            is_new_seed = side.run.seed not in {other.run.seed for other in group}
            if _recipe(group[0]) == _recipe(side) and is_new_seed:
                group.append(side)
                break
        else:
            groups.append([side])
    return groups if len(groups) > 1 else [[side] for side in sides]


def _arm_name(group: Sequence[Side]) -> str:
    name = group[0].run.run
    return name if len(group) == 1 else f"{name} and {len(group) - 1} more"


def _settings(groups: Sequence[Sequence[Side]]) -> dict[str, tuple[Json, ...]]:
    configs = [group[0].config for group in groups]
    keys = sorted({key for config in configs for key in config})
    found = {key: tuple(config.get(key) for config in configs) for key in keys}
    hidden = PLACES - {"seed"}
    return {
        key: values
        for key, values in found.items()
        if key.split(".")[0] not in hidden and any(value != values[0] for value in values)
    }


def _pairs(baseline: Sequence[Side], group: Sequence[Side]) -> tuple[list[Pair], list[str]]:
    """What is held against what, and what a reader must know of it."""
    seeds = {side.run.seed: side for side in baseline}
    pairs = [(seeds[side.run.seed], side) for side in group if side.run.seed in seeds]
    if not pairs and len(baseline) == len(group) == 1:
        first, second = baseline[0].run.seed, group[0].run.seed
        note = (
            f"Their seeds differ ({first}, {second}): the differences contain those between seeds, "
            "which one run of each cannot tell apart."
        )
        return [(baseline[0], group[0])], [note]
    notes = []
    left = len(baseline) + len(group) - 2 * len(pairs)
    if pairs and left:
        notes.append(f"{left} runs have no partner with the same seed and are left out.")
    if len(pairs) == 1:
        notes.append("One seed: intervals are over test examples and say nothing of other seeds.")
    return pairs, notes


def _compare(
    name: str, baseline: Sequence[Side], group: Sequence[Side], tasks: Sequence[str]
) -> ArmComparison:
    pairs, notes = _pairs(baseline, group)
    why_not = None
    if not pairs:
        seeds = [sorted(side.run.seed for side in sides) for sides in (baseline, group)]
        why_not = f"no seed in common: {seeds[0]}, {seeds[1]}"
        notes.append(f"Nothing is paired: {why_not}.")

    by_task = {quantity: task_contrasts(quantity, tasks, pairs, why_not) for quantity in QUANTITIES}
    return ArmComparison(
        arm=name,
        pairs=tuple((a.run.run, b.run.run) for a, b in pairs),
        notes=tuple(notes),
        tasks=by_task,
        metrics=metric_contrasts(pairs, by_task, why_not),
        drift=drift_contrasts(tasks, pairs, why_not),
        costs=cost_contrasts(pairs, why_not),
    )


def _lines(arm: str, side: Side) -> Iterator[ScoreLine]:
    for summary in side.run.report.section(Tasks).summaries:
        cells: Mapping[Any, Cell | None] = {
            "base": summary.base,
            "learned": summary.learned,
            "final": summary.final,
        }
        for phase, cell in cells.items():
            if cell is not None:
                yield ScoreLine(
                    arm,
                    side.run.run,
                    side.run.seed,
                    summary.task,
                    phase,
                    cell.score,
                    cell.interval,
                    cell.n,
                )
