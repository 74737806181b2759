"""Reads run folders and compares them with the first; no model is needed."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fastslow.config.loading.load import leaves
from fastslow.core.errors import CheckpointError, ConfigError
from fastslow.core.text import shorten
from fastslow.core.types import Json
from fastslow.records.data import read_identity, require_comparable
from fastslow.results.compare.contrasts import (
    METRICS,
    Pair,
    cost_contrasts,
    drift_contrasts,
    metric_contrast,
    task_contrasts,
)
from fastslow.results.compare.data import QUANTITIES, Arm, ArmComparison, ArmRun, RunComparison
from fastslow.results.compare.origin import origins
from fastslow.results.reading import read_object
from fastslow.results.report.build import build_report

PLACES = frozenset({"name", "runs_dir", "publish", "tracking", "seed"})
"""Top-level keys that say where things go, and the seed; runs that share all others are an arm."""


def compare_runs(paths: Sequence[Path]) -> RunComparison:
    """Compare runs, example by example where they were scored on the same.

    Runs whose configurations differ in nothing but the seed are one arm, unless that would leave
    one arm only; then each run is its own. The first is the baseline.

    Raises:
        ConfigError: Fewer than two folders, or one given twice.
        CheckpointError: One is not a run folder, a record in it is damaged, or two runs were made
            on different data; see `require_comparable`.
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
    require_comparable([read_identity(run.report.path) for run in runs])
    baseline, *others = arms = _arms(runs)
    tasks = tuple(dict.fromkeys(task for run in runs for task in run.report.card.tasks))
    return RunComparison(
        arms=tuple(arms),
        tasks=tasks,
        guesses={t: g for run in reversed(runs) for t, g in run.report.guesses.items()},
        settings=_settings(arms),
        comparisons=tuple(_compare(baseline, arm, tasks) for arm in others),
        origins=origins(arms),
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
    report, config = build_report(path), read_object(path / "config.json")
    if not isinstance(seed := config.get("seed"), int):
        raise CheckpointError(
            f"{path / 'config.json'}: not the configuration of a run, got seed "
            f"{shorten(repr(seed), 60)}, expected a whole number. Restore it from a copy."
        )
    return ArmRun(name, seed, report, leaves(config))


def _arms(runs: Sequence[ArmRun]) -> list[Arm]:
    groups: dict[tuple[str, int], list[ArmRun]] = {}
    repeats = Counter[tuple[str, int]]()
    for run in runs:
        recipe = {key: v for key, v in run.config.items() if key.split(".")[0] not in PLACES}
        text = json.dumps(recipe, sort_keys=True)
        # a second run with the same seed begins another arm
        groups.setdefault((text, repeats[text, run.seed]), []).append(run)
        repeats[text, run.seed] += 1
    arms = list(groups.values()) if len(groups) > 1 else [[run] for run in runs]
    more = [f" and {len(arm) - 1} more" if len(arm) > 1 else "" for arm in arms]
    return [Arm(arm[0].run + end, tuple(arm)) for arm, end in zip(arms, more, strict=True)]


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
        metrics=tuple(metric_contrast(name, by_task, pairs, why_not) for name in METRICS),
        drift=drift_contrasts(tasks, pairs, why_not),
        costs=cost_contrasts(pairs, why_not),
    )
