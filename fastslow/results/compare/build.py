"""Reads run folders and compares them with the first; no model is needed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastslow.core.errors import CheckpointError, ConfigError
from fastslow.core.files import read_json
from fastslow.core.types import Json
from fastslow.records.jsonl import read_events, read_scores
from fastslow.results.compare.contrasts import (
    Pair,
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
    RunComparison,
)
from fastslow.results.report.build import build_report
from fastslow.results.report.cells import CellTable

PLACES = frozenset({"name", "runs_dir", "tracking", "seed"})
"""Top-level keys that say where things go, and the seed; runs that share all others are an arm."""


def compare_runs(paths: Sequence[Path]) -> RunComparison:
    """Compare runs, example by example where they were scored on the same.

    Runs whose configurations differ in nothing but the seed are one arm, unless that would leave
    one arm only; then each run is its own.

    Args:
        paths: Run folders, the baseline first; only read.

    Raises:
        ConfigError: Fewer than two folders, or one given twice.
        CheckpointError: One is not a run folder, or a record in it is damaged.
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
    runs = [_read(path, name) for path, name in zip(paths, _names(paths), strict=True)]
    baseline, *others = arms = _arms(runs)
    tasks = tuple(dict.fromkeys(task for run in runs for task in run.report.tasks))
    return RunComparison(
        arms=tuple(arms),
        tasks=tasks,
        settings=_settings(arms),
        comparisons=tuple(_compare(baseline, arm, tasks) for arm in others),
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """Names of the folders; with as much of their paths as tells them apart."""
    resolved = [path.resolve() for path in paths]
    for depth in range(1, max(len(path.parts) for path in resolved)):
        names = ["/".join(path.parts[-depth:]) for path in resolved]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in resolved]


def _read(path: Path, name: str) -> ArmRun:
    report = build_report(path)
    scores, events = read_scores(path / "scores.jsonl"), read_events(path / "events.jsonl")
    table = CellTable(scores, report.stage_tasks, events)
    try:
        config: dict[str, Any] = read_json(path / "config.json")
        seed = int(config["seed"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path / 'config.json'}: cannot be read, got {error!r}. Give a folder that "
            "`fastslow train` made."
        ) from error
    return ArmRun(name, seed, report, table, dict(_leaves(config, ())))


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


def _recipe(run: ArmRun) -> str:
    """Everything of a configuration that makes an arm, as one text."""
    recipe = {key: v for key, v in run.config.items() if key.split(".")[0] not in PLACES}
    return json.dumps(recipe, sort_keys=True)


def _arms(runs: Sequence[ArmRun]) -> list[Arm]:
    groups: list[list[ArmRun]] = []
    for run in runs:
        for group in groups:
            is_new_seed = run.seed not in {member.seed for member in group}
            if _recipe(group[0]) == _recipe(run) and is_new_seed:
                group.append(run)
                break
        else:
            groups.append([run])
    groups = groups if len(groups) > 1 else [[run] for run in runs]
    return [Arm(_arm_name(group), tuple(group)) for group in groups]


def _arm_name(group: Sequence[ArmRun]) -> str:
    name = group[0].run
    return name if len(group) == 1 else f"{name} and {len(group) - 1} more"


def _settings(arms: Sequence[Arm]) -> dict[str, tuple[Json, ...]]:
    configs = [arm.runs[0].config for arm in arms]
    keys = sorted({key for config in configs for key in config})
    by_key = {key: tuple(config.get(key) for config in configs) for key in keys}
    hidden = PLACES - {"seed"}
    return {
        key: values
        for key, values in by_key.items()
        if key.split(".")[0] not in hidden and any(value != values[0] for value in values)
    }


def _pairs(baseline: Arm, arm: Arm) -> tuple[list[Pair], list[str]]:
    """The runs that are compared with each other, and notes on the pairing."""
    by_seed = {run.seed: run for run in baseline.runs}
    pairs = [(by_seed[run.seed], run) for run in arm.runs if run.seed in by_seed]
    if not pairs and len(baseline.runs) == len(arm.runs) == 1:
        first, second = baseline.runs[0], arm.runs[0]
        note = (
            f"Their seeds differ ({first.seed}, {second.seed}): the differences contain those "
            "between seeds, which one run of each cannot tell apart."
        )
        return [(first, second)], [note]
    unpaired = len(baseline.runs) + len(arm.runs) - 2 * len(pairs)
    if not pairs or not unpaired:
        return pairs, []
    return pairs, [f"{unpaired} runs have no partner with the same seed and are left out."]


def _compare(baseline: Arm, arm: Arm, tasks: Sequence[str]) -> ArmComparison:
    pairs, notes = _pairs(baseline, arm)
    why_not = None
    if not pairs:
        seeds = [sorted(run.seed for run in side.runs) for side in (baseline, arm)]
        why_not = f"no seed in common: {seeds[0]}, {seeds[1]}"
        notes.append(f"Nothing is paired: {why_not}.")
    by_task = {quantity: task_contrasts(quantity, tasks, pairs, why_not) for quantity in QUANTITIES}
    return ArmComparison(
        arm=arm.name,
        pairs=tuple((a.run, b.run) for a, b in pairs),
        notes=tuple(notes),
        tasks=by_task,
        metrics=metric_contrasts(pairs, by_task, why_not),
        drift=drift_contrasts(tasks, pairs, why_not),
        costs=cost_contrasts(pairs, why_not),
    )
