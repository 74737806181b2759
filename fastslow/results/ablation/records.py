"""The measurements of an ablation's finished runs, as plain data for statistics and claims."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from fastslow.config.loading.load import leaves
from fastslow.core.errors import EvaluationError
from fastslow.measure.scores.guessing import Guess
from fastslow.measure.scores.matrix import ScoreMatrix
from fastslow.measure.scores.plasticity import Probe
from fastslow.measure.stats.over_seeds import Clusters
from fastslow.records.cells import CellTable, ExampleScores
from fastslow.records.data import Identity, data_of, read_identity, require_comparable
from fastslow.records.events import (
    CycleEvent,
    Event,
    GuessEvent,
    RemedyEvent,
    ScoreRow,
    TextEvent,
)
from fastslow.records.jsonl import read_events, read_scores
from fastslow.records.row_metrics import kl_values
from fastslow.results.ablation.plan import Plan, PlannedRun
from fastslow.results.report.sections.plasticity import probes_of, read_curves
from fastslow.task.registry import build_task


@dataclass(frozen=True, slots=True)
class Point:
    """A point of the learning curve of a stage's task."""

    slow: int
    """Rollouts of the slow channel in the stage until then."""
    total: int
    """Of both channels; choosing the prompt to deploy, which follows, is not in it."""
    scores: ExampleScores
    """Under the best prompt so far, by example."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One finished run."""

    arm: str
    seed: int
    order: str | None
    config_hash: str
    matrix: ScoreMatrix
    noise_floor: float
    """How far repeated evaluations of the base lie apart; 0 where it was scored once."""
    cells: Mapping[tuple[int, str], ExampleScores]
    """By row of the matrix and task, the scores behind each cell."""
    curves: tuple[tuple[Point, ...], ...]
    """By stage: the row before it, the end of each cycle, the row after it, as far as measured."""
    rollouts: Mapping[str, int]
    """Completions of the whole run, by `fast` and `slow`."""
    kl: Mapping[tuple[int, str], float]
    """`kl_fst` under the deployed prompt, by row and task."""
    probe: Probe | None
    """Of the last row's weights; None where none was made."""
    clusters: Clusters = field(default_factory=dict)
    """By task, the cluster of every example that names one."""
    guesses: Mapping[str, Guess] = field(default_factory=dict)
    """By task, what guessing scores; empty where an older version did not grade it."""

    @property
    def stages(self) -> tuple[str, ...]:
        """The task of each stage, in training order."""
        return self.matrix.stages


def average_guess(records: Sequence[RunRecord]) -> tuple[float, float | None] | None:
    """Mean over trained tasks of the constant answer's score and of the uniform guess's.

    None where guessing was not graded on every task; no uniform guess where some task has none.
    """
    guesses = {task: guess for run in records for task, guess in run.guesses.items()}
    trained = sorted({task for run in records for task in run.stages})
    if not trained or not guesses.keys() >= {*trained}:
        return None
    uniform = [u for task in trained if (u := guesses[task].uniform_score) is not None]
    constant = fmean(guesses[task].constant_score for task in trained)
    return constant, fmean(uniform) if len(uniform) == len(trained) else None


def read_records(plan: Plan, folders: Mapping[str, Path]) -> list[RunRecord]:
    """The runs of a plan that have a folder among the finished ones, in its order.

    Raises:
        CheckpointError: A record is damaged, or two runs were made on different data.
        EvaluationError: Recorded scores cannot form a matrix, or two runs scored other versions of
            a task.
    """
    require_comparable([read_identity(path) for path in folders.values()])
    records, versions = [], dict[str, str]()
    for run, path in ((run, folders[run.name]) for run in plan.runs if run.name in folders):
        scores = read_scores(path / "scores.jsonl")
        for sample in (row.sample for row in scores):
            if versions.setdefault(sample.task, sample.version) != sample.version:
                raise EvaluationError(
                    f"{path}: scored task {sample.task!r} as {sample.version}, other runs of the "
                    f"ablation as {versions[sample.task]}. Scores of two versions cannot be "
                    "compared: remove the folders of the older runs, and run the ablation again."
                )
        records.append(_record(path, run, scores))
    return records


def require_same_data(plan: Plan, folders: Mapping[str, Path]) -> None:
    """Make sure that the finished runs of a plan, and those still to be made, are on the same data.

    Data is opened only if a run is to be made.

    Raises:
        CheckpointError: They are not; see `require_comparable`.
        TaskError: A task of a run that is to be made cannot be built.
    """
    identities = [read_identity(path) for path in folders.values()]
    planned = {}
    for config in (run.config for run in plan.runs if run.name not in folders):
        planned[config.model_dump_json(include={"tasks", "stages", "data"})] = config
    for config in planned.values() if identities else ():
        tasks = {
            name: data_of(build_task(name, use.use, use.params, allow_code=config.allow_code))
            for name, use in ((name, config.task_use(name)) for name in config.task_names)
        }
        identities.append(Identity("what is there now", leaves(config), tasks))
    require_comparable(identities)


def _record(path: Path, run: PlannedRun, scores: Sequence[ScoreRow]) -> RunRecord:
    stages = tuple(stage.task for stage in run.config.stages)
    tasks = run.config.task_names
    events = read_events(path / "events.jsonl")
    table = CellTable(scores, stages, events)
    rows = range(len(stages) + 1)
    cells = {(row, task): table.deployed(row, task) for row in rows for task in tasks}
    floors = [table.base_floor(task).value or 0.0 for task in tasks]
    probes = probes_of(read_curves(path), max(floors))
    return RunRecord(
        arm=run.arm,
        seed=run.seed,
        order=run.order,
        config_hash=run.hash,
        matrix=table.matrix(tasks),
        noise_floor=max(floors),
        cells=cells,
        curves=_curves(cells, scores, events, stages),
        rollouts=_rollouts(events),
        kl=kl_values(events),
        probe=next((probe.probe for probe in probes if probe.row == len(stages)), None),
        clusters=table.clusters,
        guesses={event.task: event.guess for event in events if isinstance(event, GuessEvent)},
    )


def _curves(
    cells: Mapping[tuple[int, str], ExampleScores],
    rows: Sequence[ScoreRow],
    events: Sequence[Event],
    stages: Sequence[str],
) -> tuple[tuple[Point, ...], ...]:
    within: dict[tuple[int, int], dict[str, float]] = {}
    for row in rows:
        if row.cycle is not None and row.sample.task == stages[row.row - 1]:
            within.setdefault((row.row, row.cycle), {})[row.sample.example] = row.sample.score
    curves = []
    for index, task in enumerate(stages):
        spent = [e for e in events if isinstance(e, CycleEvent) and e.stage == index]
        start = cells[index, task]
        points = [Point(0, 0, start)] if start else []
        cycles = sorted({event.cycle for event in spent})
        for cycle in cycles:
            until = [event.rollouts for event in spent if event.cycle <= cycle]
            is_last = cycle == cycles[-1]
            scores = cells[index + 1, task] if is_last else within.get((index + 1, cycle))
            if scores:
                slow = sum(counts.get("slow", 0) for counts in until)
                total = sum(sum(counts.values()) for counts in until)
                points.append(Point(slow, total, scores))
        curves.append(tuple(points))
    return tuple(curves)


def _rollouts(events: Sequence[Event]) -> dict[str, int]:
    total = Counter(fast=0, slow=0)
    for event in events:
        if isinstance(event, CycleEvent):
            total.update(event.rollouts)
        elif isinstance(event, TextEvent | RemedyEvent):
            total["fast" if isinstance(event, TextEvent) else "slow"] += event.rollouts
    return dict(total)
