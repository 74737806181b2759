"""Computes a report from the files of one run folder; no model is needed."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from fastslow.core.types import Metric
from fastslow.measure.model.divergences import forgetting_on_kl
from fastslow.measure.scores.all_metrics import final_metrics, task_metrics
from fastslow.measure.scores.intransigence import why_bwt_says_nothing
from fastslow.measure.scores.matrix import ScoreMatrix
from fastslow.measure.stats.intervals import Interval, mean_difference
from fastslow.records.deployments import deployed_row, deployments
from fastslow.records.events import (
    CycleEvent,
    DriftEvent,
    EvaluationEvent,
    Event,
    FiguresEvent,
    GraderEvent,
    ReoptimizedEvent,
    RunEvent,
    ShrinkEvent,
    TextEvent,
)
from fastslow.records.jsonl import read_events, read_scores
from fastslow.results.report.cells import CellTable
from fastslow.results.report.data import (
    CyclePoint,
    EvaluationCost,
    Note,
    Prompt,
    Report,
    StageSummary,
    TaskSummary,
)
from fastslow.results.report.reading import read_card, read_object, require_places, steps_per_cycle
from fastslow.results.report.sections.channel_split import channel_splits
from fastslow.results.report.sections.curves import learning_curve_area, stage_curves
from fastslow.results.report.sections.plasticity import probe_cost, read_probes
from fastslow.results.report.sections.reflection import reflection_account

Spending: TypeAlias = CycleEvent | TextEvent | ShrinkEvent
"""Events whose rollouts and seconds are a channel's."""


def build_report(run_path: Path) -> Report:
    """Compute the report of a run, finished or not, from its folder.

    Args:
        run_path: A run folder; only read.

    Raises:
        CheckpointError: It is no run folder, or a record in it is damaged.
        EvaluationError: Recorded scores cannot form a matrix.
    """
    card = read_card(run_path / "run.json")
    tasks, stages = card.tasks, card.stages
    scores = read_scores(run_path / "scores.jsonl")
    events = read_events(run_path / "events.jsonl")
    require_places(scores, events, stages, run_path)
    texts = [event for event in events if isinstance(event, TextEvent)]
    first_text = {event.task: event.stage + 1 for event in reversed(texts)}
    table = CellTable(scores, stages, first_text)
    cells = tuple(tuple(table.cell(row, t) for t in tasks) for row in range(len(stages) + 1))
    matrix = ScoreMatrix(tasks, stages, tuple(tuple(c.score for c in row) for row in cells))
    floors = [floor for task in tasks if (floor := table.base_floor(task).value) is not None]
    noise_floor = max(floors, default=None)
    cycles, steps = [e for e in events if isinstance(e, CycleEvent)], steps_per_cycle(run_path)
    curves = stage_curves(table, scores, cycles, stages, steps)
    metrics = final_metrics(matrix, noise_floor=noise_floor)
    metrics = {**metrics, "lca": learning_curve_area(curves, steps)}
    budgets = {e.task: e.rollouts for e in events if isinstance(e, ReoptimizedEvent)}
    drift = _last_drift(events, tasks)
    versions = {row.sample.task: row.sample.version for row in scores}
    summaries = tuple(
        _summary(table, matrix, task, versions.get(task), noise_floor) for task in tasks
    )
    spent = [event for event in events if isinstance(event, Spending)]
    evaluations = [event for event in events if isinstance(event, EvaluationEvent)]
    probes = read_probes(run_path, noise_floor or 0.0)
    costs = _evaluations(evaluations)
    if (probing := probe_cost(run_path)) is not None:
        costs["probe"] = EvaluationCost(*probing, 0)
    seconds_by = _seconds(spent) | {"evaluation": float(sum(c.seconds for c in costs.values()))}
    ends = [event for event in events if isinstance(event, RunEvent)]
    marks = [event.seconds for event in ends]
    return Report(
        run=card.run,
        state=card.state,
        command=card.command,
        config_hash=card.config_hash,
        environment=read_object(run_path / "environment.json"),
        tasks=tasks,
        stage_tasks=stages,
        cells=cells,
        metrics=metrics,
        intervals=_intervals(metrics, summaries, len(stages)),
        summaries=summaries,
        stages=tuple(_stage(i, matrix, spent, noise_floor) for i in range(len(stages))),
        drift=drift,
        kl_fit=_kl_fit(matrix, drift),
        shrinks=tuple({e.stage: e for e in events if isinstance(e, ShrinkEvent)}.values()),
        notes=_notes(events),
        prompts=_prompts(
            [e for e in texts if e.stage < deployed_row(run_path, len(stages))], tasks
        ),
        reflection=reflection_account(events),
        rollouts=_rollouts(spent) | {"evaluation": sum(c.rollouts for c in costs.values())},
        seconds_by=seconds_by,
        seconds=max([sum(seconds_by.values()), *marks]),
        saving_seconds=next((e.saving_seconds for e in reversed(ends)), None),
        bwt_warning=why_bwt_says_nothing(matrix, noise_floor or 0.0),
        splits=channel_splits(table, tasks, budgets),
        curves=curves,
        cycles=_cycle_points(cycles),
        measured=tuple(
            {(e.kind, e.row, e.of): e for e in events if isinstance(e, FiguresEvent)}.values()
        ),
        probes=probes,
        evaluations=costs,
        deployed=next(reversed(deployments(run_path)), None),
    )


def _notes(events: Sequence[Event]) -> tuple[Note, ...]:
    """What channels said, and what graders could not grade, in order."""
    notes = []
    for event in events:
        if isinstance(event, CycleEvent):
            channel = next(iter(event.rollouts), "")
            notes += [Note(event.stage, event.cycle, channel, text) for text in event.notes]
        elif isinstance(event, GraderEvent):
            text = (
                f"{event.failures} answers could not be graded and count as 0; the last, "
                f"{event.last}"
            )
            notes.append(Note(event.stage, event.cycle, f"grader of {event.task}", text))
    return tuple(notes)


def _cycle_points(cycles: Sequence[CycleEvent]) -> tuple[CyclePoint, ...]:
    """One point per cycle; channels report in one event or in one each."""
    found: dict[tuple[int, int], dict[str, float | None]] = {}
    for event in cycles:
        found.setdefault((event.stage, event.cycle), {}).update(event.metrics)
    return tuple(
        CyclePoint(stage, cycle, metrics.get("fast/best_score"), metrics.get("slow/reward"))
        for (stage, cycle), metrics in sorted(found.items())
    )


def _evaluations(events: Sequence[EvaluationEvent]) -> dict[str, EvaluationCost]:
    """Cost by part, in the order in which the parts first came."""
    made = {}
    for part in dict.fromkeys(event.part for event in events):
        own = [event for event in events if event.part == part]
        made[part] = EvaluationCost(
            sum(e.rollouts for e in own),
            float(sum(e.seconds for e in own)),
            sum(e.reused for e in own),
        )
    return made


def _summary(
    table: CellTable, matrix: ScoreMatrix, task: str, version: str | None, floor: float | None
) -> TaskSummary:
    last, learned = len(table.stages), table.learned_row(task)
    return TaskSummary(
        task=task,
        version=version,
        learned_row=learned,
        base=table.cell(0, task),
        learned=None if learned is None else table.cell(learned, task),
        final=table.cell(last, task),
        gain=table.compare(task, 0, learned),
        change=table.compare(task, learned, last),
        net=table.compare(task, 0, last),
        terms={} if learned is None else task_metrics(matrix, learned, noise_floor=floor),
        noise_floor=table.base_floor(task),
    )


def _intervals(
    metrics: Mapping[str, Metric], summaries: Sequence[TaskSummary], num_stages: int
) -> dict[str, Interval]:
    """Of `bwt_gem`: the one default metric that is a plain mean of paired differences."""
    changes = [s.change.difference for s in summaries if s.change.difference is not None]
    earlier = [s for s in summaries if s.learned_row not in (None, num_stages)]
    complete = metrics["bwt_gem"].value is not None and len(changes) == len(earlier)
    interval = mean_difference(changes) if complete else None
    return {} if interval is None else {"bwt_gem": interval}


def _stage(
    index: int, matrix: ScoreMatrix, spent: Sequence[Spending], noise_floor: float | None
) -> StageSummary:
    own = [event for event in spent if event.stage == index]
    return StageSummary(
        task=matrix.stages[index],
        cycles=len({event.cycle for event in own if isinstance(event, CycleEvent)}),
        rollouts=_rollouts(own),
        seconds=_seconds(own),
        metrics=final_metrics(matrix.upto(index + 1), noise_floor=noise_floor),
    )


def _last_drift(events: Sequence[Event], tasks: Sequence[str]) -> tuple[DriftEvent, ...]:
    last = {(e.name, e.row, e.task, e.text): e for e in events if isinstance(e, DriftEvent)}
    order = {task: position for position, task in enumerate(tasks)}

    def place(event: DriftEvent) -> tuple[str, int, str, int, str]:
        return event.name, event.row, event.text, order.get(event.task, len(order)), event.task

    return tuple(sorted(last.values(), key=place))


def _kl_fit(matrix: ScoreMatrix, drift: Sequence[DriftEvent]) -> dict[str, Metric]:
    """One point per later stage and earlier task: what it lost, at the stage's `kl_razor`."""
    razor = {
        (e.row, e.task): e.value
        for e in drift
        if e.name == "kl_razor" and e.text == "with_text" and e.value is not None
    }
    divergences, lost = [], []
    for i in range(2, matrix.num_stages + 1):
        kl = razor.get((i, matrix.stages[i - 1]))
        for j in range(1, i):
            column = matrix.tasks.index(matrix.stages[j - 1])
            learned, now = matrix.rows[j][column], matrix.rows[i][column]
            if kl is not None and learned is not None and now is not None:
                divergences.append(kl)
                lost.append(learned - now)
    return forgetting_on_kl(divergences, lost)


def _prompts(texts: Sequence[TextEvent], tasks: Sequence[str]) -> tuple[Prompt, ...]:
    live = {event.task: event for event in texts}
    return tuple(
        Prompt(e.task, e.stage, e.program, e.validation_mean, e.validation_n)
        for e in (live[task] for task in tasks if task in live)
    )


def _rollouts(spent: Iterable[Spending]) -> dict[str, int]:
    """Completions by channel; choosing a text is the fast channel's, shrinking the slow one's."""
    total = {"fast": 0, "slow": 0}
    for event in spent:
        counts = (
            event.rollouts if isinstance(event, CycleEvent) else {_payer(event): event.rollouts}
        )
        for channel, count in counts.items():
            total[channel] = total.get(channel, 0) + count
    return total


def _payer(event: TextEvent | ShrinkEvent) -> str:
    return "fast" if isinstance(event, TextEvent) else "slow"


def _seconds(spent: Iterable[Spending]) -> dict[str, float]:
    """Wall time by channel; as `_rollouts`."""
    total = {"fast": 0.0, "slow": 0.0}
    for event in spent:
        times = event.seconds if isinstance(event, CycleEvent) else {_payer(event): event.seconds}
        for channel, seconds in times.items():
            total[channel] = total.get(channel, 0.0) + seconds
    return total
