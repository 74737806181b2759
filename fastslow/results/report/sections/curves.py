"""Learning curves within stages, from the scores recorded after their cycles."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fastslow.core.seeds import named_random
from fastslow.core.types import Json, Metric
from fastslow.measure.scores.accuracy import lca
from fastslow.measure.scores.curves import LearningCurve, count_to_threshold, fit_sigmoid
from fastslow.measure.stats.bootstrap import Estimate
from fastslow.records.events import CycleEvent, ScoreRow
from fastslow.results.report.cells import CellTable, ExampleScores

THRESHOLD = 0.5
"""Score whose first count is reported. Source: ours."""


@dataclass(frozen=True, slots=True)
class StageCurve:
    """How one stage's task was learned."""

    stage: int
    """Index of the stage, from 0."""
    task: str
    curve: LearningCurve | None
    reason: str | None
    """Why there is no curve."""
    to_threshold: Metric | None
    """First count at which the mean score is at `THRESHOLD`."""
    sigmoid: Mapping[str, Estimate]

    def to_json(self) -> dict[str, Json]:
        """Plain data, as docs/report-schema.md describes it."""
        curve, reached = self.curve, self.to_threshold
        return {
            "stage": self.stage,
            "task": self.task,
            "reason": self.reason,
            "unit": curve.unit if curve else None,
            "at": list(curve.counts) if curve else [],
            "scores": curve.means() if curve else [],
            "n": curve.num_examples if curve else 0,
            "threshold": _metric(reached) if reached else None,
            "sigmoid": {name: _estimate(found) for name, found in self.sigmoid.items()},
        }


def stage_curves(
    table: CellTable,
    rows: Sequence[ScoreRow],
    cycles: Sequence[CycleEvent],
    stages: Sequence[str],
    steps_per_cycle: int,
) -> tuple[StageCurve, ...]:
    """One curve per stage: the row before it, a point after each cycle, the row after it.

    Args:
        table: Cells of the matrix.
        rows: Every score row; those within a stage are the points.
        cycles: What cycles drew.
        stages: The task each stage trains on.
        steps_per_cycle: Unit of the curve where a stage draws no rollouts.
    """
    points: dict[tuple[int, int], dict[str, float]] = {}
    for row in rows:
        if row.cycle is not None and row.sample.task == stages[row.row - 1]:
            points.setdefault((row.row, row.cycle), {})[row.sample.example] = row.sample.score
    return tuple(
        _curve(table, index, task, points, [c for c in cycles if c.stage == index], steps_per_cycle)
        for index, task in enumerate(stages)
    )


def learning_curve_area(curves: Sequence[StageCurve], steps_per_cycle: int) -> Metric:
    """`lca` over the stages of a run, up to the last update that all of them made.

    Its curve has a point after every update; ours has one after every cycle. The two are the same
    where a cycle is one update.

    Args:
        curves: Of every stage.
        steps_per_cycle: Updates between two points.
    """
    points = {
        f"{curve.stage + 1} {curve.task}": curve.curve.means() if curve.curve else []
        for curve in curves
    }
    updates = min((len(scores) - 1 for scores in points.values()), default=0)
    found = lca(points, max(0, updates))
    if steps_per_cycle == 1:
        return found
    return replace(
        found,
        value=None,
        reason=f"not measured: scored after every {steps_per_cycle} updates, needs a score after "
        "each (cycle.optimizer_steps = 1)",
    )


def _curve(
    table: CellTable,
    stage: int,
    task: str,
    points: Mapping[tuple[int, int], ExampleScores],
    cycles: Sequence[CycleEvent],
    steps_per_cycle: int,
) -> StageCurve:
    done = sorted({event.cycle for event in cycles})
    drawn = {
        cycle: sum(sum(e.rollouts.values()) for e in cycles if e.cycle <= cycle) for cycle in done
    }
    scored = {0: table.deployed(stage, task)}
    grows = bool(done) and list(drawn.values()) == sorted({*drawn.values()} - {0})
    for cycle in done:
        count = drawn[cycle] if grows else (cycle + 1) * steps_per_cycle
        scores = points.get((stage + 1, cycle))
        scored[count] = scores or (table.deployed(stage + 1, task) if cycle == done[-1] else {})
    known = {count: scores for count, scores in scored.items() if scores}
    shared = set.intersection(*(set(scores) for scores in known.values())) if known else set()
    if len(known) < 2 or not shared:
        reason = "not measured: needs the rows before and after the stage, on shared examples"
        return StageCurve(stage, task, None, reason, None, {})
    curve = LearningCurve(
        "rollouts" if grows else "steps",
        tuple(known),
        tuple(tuple(scores[example] for example in sorted(shared)) for scores in known.values()),
    )
    return StageCurve(
        stage,
        task,
        curve,
        None,
        count_to_threshold(curve, THRESHOLD),
        fit_sigmoid(curve, named_random(0, "report", "curve", stage)),
    )


def _metric(metric: Metric) -> dict[str, Json]:
    return {"value": metric.value, "reason": metric.reason, "formula": metric.formula}


def _estimate(found: Estimate) -> dict[str, Json]:
    interval = found.interval
    return _metric(found.metric) | {
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
    }
