"""Learning curves within stages, and the scores that the channels themselves saw."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fastslow.core.seeds import named_random
from fastslow.core.types import Metric
from fastslow.measure.scores.accuracy import lca
from fastslow.measure.scores.curves import LearningCurve, count_to_threshold, fit_sigmoid
from fastslow.measure.stats.bootstrap import Estimate
from fastslow.records.cells import ExampleScores
from fastslow.records.events import CycleEvent
from fastslow.results.render import drawing
from fastslow.results.render.encoding import with_limits
from fastslow.results.render.layout import Table, Text, metric_text, row
from fastslow.results.report.section import Records, Section, stage_label

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


class Curves(Section):
    """One curve per stage: the row before it, a point after each cycle, the row after it."""

    chapter = "curves"

    def __init__(self, records: Records) -> None:
        stages, points = records.card.stages, dict[tuple[int, int], dict[str, float]]()
        for line in records.scores:
            sample = line.sample
            if line.cycle is not None and sample.task == stages[line.row - 1]:
                points.setdefault((line.row, line.cycle), {})[sample.example] = sample.score
        self.curves = [_curve(records, index, points) for index in range(len(stages))]

    def to_json(self) -> Mapping[str, object]:
        return {"curves": [_curve_json(stage) for stage in self.curves]}

    def tables(self) -> Iterator[Table]:
        yield Table(
            "Learning curves",
            ("stage", "points", "n", "score 0.5 reached at", "asymptote of a sigmoid"),
            tuple(_row(stage) for stage in self.curves),
            "Points: rollouts (or optimizer steps) drawn for training in the stage until then, and "
            "the mean test score, within a stage under the best prompt so far.",
        )


def learning_curve_area(curves: Sequence[StageCurve], steps_per_cycle: int) -> Metric:
    """`lca` over the stages of a run, up to the last update that all of them made.

    Its curve has a point after every update; ours has one after every cycle of `steps_per_cycle`
    updates. The two are the same where that is 1.
    """
    points = {
        stage_label(stage.stage, stage.task): stage.curve.means() if stage.curve else []
        for stage in curves
    }
    updates = min((len(scores) - 1 for scores in points.values()), default=0)
    area = lca(points, max(0, updates))
    if steps_per_cycle == 1:
        return area
    return replace(
        area,
        value=None,
        reason=f"not measured: scored after every {steps_per_cycle} updates, needs a score after "
        "each (cycle.optimizer_steps = 1)",
    )


def _curve(
    records: Records, stage: int, points: Mapping[tuple[int, int], ExampleScores]
) -> StageCurve:
    """The curve of a stage, on the examples that all its points share."""
    table, task = records.table, records.card.stages[stage]
    events = [event for event in records.events_of(CycleEvent) if event.stage == stage]
    cycles = sorted({event.cycle for event in events})
    rollouts = {c: sum(sum(e.rollouts.values()) for e in events if e.cycle <= c) for c in cycles}
    grows = bool(cycles) and list(rollouts.values()) == sorted({*rollouts.values()} - {0})
    scores = {0: table.deployed(stage, task)}
    for cycle in cycles:
        count = rollouts[cycle] if grows else (cycle + 1) * records.steps_per_cycle
        end = table.deployed(stage + 1, task) if cycle == cycles[-1] else {}
        scores[count] = points.get((stage + 1, cycle)) or end
    scores = {count: by_example for count, by_example in scores.items() if by_example}
    shared = sorted(set.intersection(*map(set, scores.values()))) if scores else []
    if len(scores) < 2 or not shared:
        reason = "not measured: needs the rows before and after the stage, on shared examples"
        return StageCurve(stage, task, None, reason, None, {})
    curve = LearningCurve(
        "rollouts" if grows else "steps",
        tuple(scores),
        tuple(tuple(by_example[name] for name in shared) for by_example in scores.values()),
        tuple(table.labels(task, shared)),
    )
    generator = named_random(0, "report", "curve", stage)
    reached, sigmoid = count_to_threshold(curve, THRESHOLD), fit_sigmoid(curve, generator)
    return StageCurve(stage, task, curve, None, reached, sigmoid)


def _curve_json(stage: StageCurve) -> dict[str, object]:
    curve = stage.curve
    return {
        "stage": stage.stage,
        "task": stage.task,
        "reason": stage.reason,
        "unit": curve.unit if curve else None,
        "at": curve.counts if curve else [],
        "scores": curve.means() if curve else [],
        "n": curve.num_examples if curve else 0,
        "threshold": stage.to_threshold,
        "sigmoid": {name: with_limits(e.metric, e.interval) for name, e in stage.sigmoid.items()},
    }


def _row(stage: StageCurve) -> tuple[Text, ...]:
    name, curve = stage_label(stage.stage, stage.task), stage.curve
    if curve is None or stage.to_threshold is None:
        return row(name, Text(stage.reason or "", "dim"), "-", "-", "-")
    points = zip(curve.counts, curve.means(), strict=True)
    asymptote = stage.sigmoid["sigmoid_asymptote"]
    return row(
        name,
        f"{', '.join(f'{n}: {mean:.2f}' for n, mean in points)} ({curve.unit})",
        curve.num_examples,
        metric_text(stage.to_threshold, 0),
        metric_text(asymptote.metric, interval=asymptote.interval),
    )


@dataclass(frozen=True, slots=True)
class CyclePoint:
    """What the channels saw in one cycle, on training problems."""

    stage: int
    """Index of the stage, from 0."""
    cycle: int
    """Index of the cycle within the stage, from 0."""
    best_text: float | None
    """Mean score of the best prompt on the anchor set (`fast/best_score`)."""
    reward: float | None
    """Mean reward of the rollouts (`slow/reward`)."""


class Cycles(Section):
    """One point per cycle; channels report in one event or in one each."""

    chapter = "curves"
    drawing_name = "cycles"

    def __init__(self, records: Records) -> None:
        self.stages = records.card.stages
        metrics: dict[tuple[int, int], dict[str, float | None]] = {}
        for event in records.events_of(CycleEvent):
            metrics.setdefault((event.stage, event.cycle), {}).update(event.metrics)
        self.points = [
            CyclePoint(*place, values.get("fast/best_score"), values.get("slow/reward"))
            for place, values in sorted(metrics.items())
        ]

    def to_json(self) -> Mapping[str, object]:
        return {"cycles": self.points}

    def draw(self) -> drawing.Drawing | None:
        if all(p.best_text is None and p.reward is None for p in self.points):
            return None
        return drawing.draw(
            self.drawing_name,
            "Curves per cycle",
            "On training problems, so not comparable with the test scores: the best prompt's mean "
            "score on each cycle's anchor set, and the mean reward of the rollouts that the "
            "weights then learned from. Dashed lines are where stages end.",
            self._paint,
            height=3.0,
        )

    def _paint(self, figure: drawing.Figure) -> None:
        axes, stages = figure.add_subplot(), [point.stage for point in self.points]
        lines = {
            "prompts: best score on the anchor set": [p.best_text for p in self.points],
            "weights: mean reward of rollouts": [p.reward for p in self.points],
        }
        for number, (name, values) in enumerate(lines.items()):
            points = [(i + 0.5, value) for i, value in enumerate(values) if value is not None]
            if points:
                axes.plot(*zip(*points, strict=True), label=name, **drawing.series(number))
        starts = [i for i, stage in enumerate(stages) if i == 0 or stage != stages[i - 1]]
        ends = [*starts[1:], len(stages)]
        is_long = len(starts) > drawing.MAX_STAGES
        names = [drawing.label(stage_label(stages[i], self.stages[stages[i]])) for i in starts]
        if len(names) > drawing.MANY:
            names = [str(stages[i] + 1) for i in starts]
        middles = [(a + b) / 2 for a, b in zip(starts, ends, strict=True)]
        if not is_long:
            drawing.stage_ends(axes, (*starts, len(stages)))
            axes.set_xticks(middles, names, fontsize=7.5)
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel("stage, one point per cycle")
        drawing.score_axis(axes, "score or reward")
        drawing.legend(axes, 1)
