"""What later stages did to each earlier task: by stage, and by the drift on its inputs."""

from collections.abc import Callable
from typing import NamedTuple

from fastslow.measure.stats.intervals import PairedDifference
from fastslow.results.render import drawing
from fastslow.results.render.encoding import ends
from fastslow.results.report.section import Records, Section, stage_label
from fastslow.results.report.sections.drift import Drift, divergences

LEAST = 0.25
"""Least change of a score that a figure has room for, so that noise does not look large."""


class Later(NamedTuple):
    """An earlier task after one of the stages that followed its own."""

    task: str
    row: int
    change: PairedDifference
    """Since the row of the task's own stage."""
    kl: float | None
    """`kl_fst` on the task's test inputs, nats per generated token; None where not measured."""


class Retention(Section):
    """The change of every earlier task since its own stage, after each later one."""

    chapter = "scores"
    drawing_name = "retention"

    def __init__(self, records: Records) -> None:
        self.stages = records.card.stages
        self.is_long = len(self.stages) > drawing.MAX_STAGES
        self.tasks = tuple(dict.fromkeys(self.stages))[: drawing.MAX_TASKS]
        kl = divergences(records.section(Drift).events, "kl_fst")
        self.points = [
            Later(task, row, change, kl.get((row, task)))
            for task in self.tasks
            if (learned := records.table.learned_row(task)) is not None
            for row in range(learned + 1, len(self.stages) + 1)
            if (change := records.table.compare(task, learned, row).difference) is not None
        ]

    def draw(self) -> drawing.Drawing | None:
        def paint(figure: drawing.Figure) -> None:
            axes = self.paint(figure, lambda point: float(point.row))
            rows = sorted({point.row for point in self.points})
            names = [drawing.label(stage_label(row - 1, self.stages[row - 1])) for row in rows]
            short = [str(row) for row in rows]
            if not self.is_long:
                axes.set_xticks(rows, names if len(rows) <= drawing.MANY else short, fontsize=7.5)
            axes.set_xlim(rows[0] - 0.5, rows[-1] + 0.5)
            axes.set_xlabel("after stage")

        if not self.points:
            return None
        return drawing.draw(
            self.drawing_name,
            "Earlier tasks while later ones were trained",
            "Score minus the score right after the task's own stage, on the same examples"
            f"{'' if self.is_long else ', with 95 % intervals'}; below the line it forgot.",
            paint,
            height=self.height,
        )

    @property
    def height(self) -> float:
        """Inches of a figure with a legend of all tasks."""
        return 2.5 + 0.18 * ((len(self.tasks) + 2) // 3)

    def paint(self, figure: drawing.Figure, place: Callable[[Later], float | None]) -> drawing.Axes:
        """The change of every point that has a place on the horizontal axis, a series a task."""
        axes = figure.add_subplot()
        axes.axhline(0, color=drawing.MUTED, lw=0.8)
        for number, task in enumerate(self.tasks):
            look = drawing.series(number) | {"ls": ":", "lw": 1}
            if self.is_long:
                look |= {"marker": "", "ls": "-"}
            points = [
                (x, p.change)
                for p in self.points
                if p.task == task and (x := place(p)) is not None  # 0 nats is a place
            ]
            for x, change in points:
                low, high = ends(change)
                if low is not None and high is not None and not self.is_long:
                    axes.plot([x, x], [low, high], color=look["color"], lw=0.8)
            if points:
                xs, ys = zip(*((x, change.mean) for x, change in points), strict=True)
                axes.plot(xs, ys, label=drawing.label(task), **look)
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, -LEAST), max(high, LEAST))
        axes.set_ylabel("change since its own stage")
        drawing.legend(axes)
        return axes


class ForgettingOnDrift(Section):
    """The same changes against the divergence from the base on the task's own inputs."""

    chapter = "drift"
    drawing_name = "forgetting-kl"

    def __init__(self, records: Records) -> None:
        self.retention = records.section(Retention)

    def draw(self) -> drawing.Drawing | None:
        def paint(figure: drawing.Figure) -> None:
            axes = self.retention.paint(figure, lambda point: point.kl)
            axes.set_xlim(left=0)
            axes.set_xlabel("KL(tuned ‖ base) on the task's inputs, nats per token")
            axes.grid(visible=True, axis="x")

        if all(point.kl is None for point in self.retention.points):
            return None
        return drawing.draw(
            self.drawing_name,
            "Forgetting against KL",
            "The same changes at the divergence from the base (kl_fst) on the task's own test "
            "inputs, in the order of the stages; below the line it forgot.",
            paint,
            height=self.retention.height,
        )
