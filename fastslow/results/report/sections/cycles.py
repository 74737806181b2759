"""The scores that the channels themselves saw, cycle by cycle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from fastslow.records.events import CycleEvent
from fastslow.results.render.drawing import (
    LINE,
    MANY,
    Drawing,
    draw,
    label,
    legend,
    score_axis,
    series,
)
from fastslow.results.report.section import Records, Section, stage_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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


@dataclass(frozen=True, slots=True)
class Cycles(Section):
    """One point per cycle, in order."""

    points: tuple[CyclePoint, ...]
    stages: tuple[str, ...]

    chapter = "curves"
    drawing_names = ("cycles",)

    @classmethod
    def compute(cls, records: Records) -> Self:
        """Take both channels' metrics; they report in one event or in one each."""
        metrics: dict[tuple[int, int], dict[str, float | None]] = {}
        for event in records.events_of(CycleEvent):
            metrics.setdefault((event.stage, event.cycle), {}).update(event.metrics)
        points = [
            CyclePoint(*place, values.get("fast/best_score"), values.get("slow/reward"))
            for place, values in sorted(metrics.items())
        ]
        return cls(tuple(points), records.card.stages)

    def to_json(self) -> Mapping[str, object]:
        """One object per cycle."""
        return {"cycles": self.points}

    def drawings(self) -> Sequence[Drawing | None]:
        """Both over the cycles of all stages."""
        lines = {
            "prompts: best score on the anchor set": [p.best_text for p in self.points],
            "weights: mean reward of rollouts": [p.reward for p in self.points],
        }
        if not any(value is not None for values in lines.values() for value in values):
            return [None]

        def paint(figure: "Figure") -> None:
            axes = figure.add_subplot()
            for number, (name, values) in enumerate(lines.items()):
                points = [(i + 0.5, value) for i, value in enumerate(values) if value is not None]
                if points:
                    axes.plot(*zip(*points, strict=True), label=name, **series(number))
            stages = [point.stage for point in self.points]
            starts = [i for i, stage in enumerate(stages) if i == 0 or stage != stages[i - 1]]
            ends = [*starts[1:], len(stages)]
            for x in (*starts, len(stages)):
                axes.axvline(x, color=LINE, lw=0.8, ls=(0, (4, 3)), zorder=0)
            middles = [(a + b) / 2 for a, b in zip(starts, ends, strict=True)]
            if len(starts) <= MANY:
                names = [label(stage_label(stages[i], self.stages[stages[i]])) for i in starts]
                axes.set_xticks(middles, names, fontsize=7.5)
            else:
                axes.set_xticks(middles, [str(stages[i] + 1) for i in starts])
            axes.tick_params(axis="x", length=0)
            axes.set_xlabel("stage, one point per cycle")
            score_axis(axes, "score or reward")
            legend(axes, 1)

        return [
            draw(
                "cycles",
                "Curves per cycle",
                "On training problems, so not comparable with the test scores: the best prompt's "
                "mean score on each cycle's anchor set, and the mean reward of the rollouts that "
                "the weights then learned from. Dashed lines are where stages end.",
                paint,
                height=3.0,
            )
        ]
