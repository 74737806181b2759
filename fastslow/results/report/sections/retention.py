"""What later stages did to each earlier task: by stage, and by the drift on its inputs."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fastslow.measure.stats.intervals import PairedDifference
from fastslow.results.render import drawing
from fastslow.results.render.encoding import ends
from fastslow.results.report.section import Records, Section, stage_label
from fastslow.results.report.sections.drift import Drift, divergences

LEAST = 0.25
"""Least change of a score that a figure has room for, so that noise does not look large."""

_SMALL: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7, "color": drawing.MUTED}


class Later(NamedTuple):
    """An earlier task after one of the stages that followed its own."""

    task: str
    row: int
    """Row of the matrix; the change is since the task's own."""
    change: PairedDifference
    kl: float | None
    """`kl_fst` on the task's test inputs, nats per generated token; None where not measured."""


class Retention(Section):
    """The change of every earlier task since its own stage, after each later one."""

    chapter = "scores"
    drawing_name = "retention"

    def __init__(self, records: Records) -> None:
        self.stages = records.card.stages
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
        if not self.points:
            return None
        return drawing.draw(
            self.drawing_name,
            "Earlier tasks while later ones were trained",
            "Score minus the score right after the task's own stage, on the same examples, with "
            "95 % intervals; below the line it forgot.",
            self._paint,
            height=2.5 + 0.18 * ((len(self.tasks) + 2) // 3),
        )

    def _paint(self, figure: drawing.Figure) -> None:
        axes = figure.add_subplot()
        axes.axhline(0, color=drawing.MUTED, lw=0.8)
        rows = sorted({point.row for point in self.points})
        for number, task, points in self.lines():
            look, shift = drawing.series(number), (number - (len(self.tasks) - 2) / 2) * 0.03
            for point in points:
                low, high = ends(point.change)
                if low is not None and high is not None:
                    x = point.row + shift
                    axes.plot([x, x], [low, high], color=look["color"], lw=0.8)
            xs, ys = [p.row + shift for p in points], [p.change.mean for p in points]
            axes.plot(xs, ys, label=drawing.label(task), **look)
        names = [drawing.label(stage_label(row - 1, self.stages[row - 1])) for row in rows]
        names = names if len(rows) <= drawing.MANY else [str(row) for row in rows]
        axes.set_xticks(rows, names, fontsize=7.5)
        axes.set_xlim(rows[0] - 0.5, rows[-1] + 0.5)
        axes.set_xlabel("after stage")
        axes.set_ylabel("change since its own stage")
        _give_room(axes)
        drawing.legend(axes)

    def lines(
        self, is_shown: Callable[[Later], bool] = lambda _: True
    ) -> Iterator[tuple[int, str, list[Later]]]:
        """Number, name and points of every task that has some."""
        for number, task in enumerate(self.tasks):
            if points := [p for p in self.points if p.task == task and is_shown(p)]:
                yield number, task, points


class ForgettingOnDrift(Section):
    """The same changes against the divergence from the base on the task's own inputs."""

    chapter = "drift"
    drawing_name = "forgetting-kl"

    def __init__(self, records: Records) -> None:
        self.retention = records.section(Retention)
        self.lines = list(self.retention.lines(lambda point: point.kl is not None))

    def draw(self) -> drawing.Drawing | None:
        if not self.lines:
            return None
        return drawing.draw(
            self.drawing_name,
            "Forgetting against KL",
            "What an earlier task lost since its own stage, with 95 % intervals, at the divergence "
            "from the base (kl_fst) on that task's test inputs then; the small numbers are the "
            "stages. Up is more forgotten.",
            self._paint,
            height=2.7 + 0.18 * ((len(self.lines) + 2) // 3),
        )

    def _paint(self, figure: drawing.Figure) -> None:
        axes = figure.add_subplot()
        axes.axhline(0, color=drawing.MUTED, lw=0.8)
        for number, task, points in self.lines:
            look = drawing.series(number) | {"ls": "none"}
            for point in points:
                x, y, (low, high) = point.kl or 0.0, 0.0 - point.change.mean, ends(point.change)
                if low is not None and high is not None:
                    axes.plot([x, x], [-high, -low], color=look["color"], lw=0.8)
                axes.annotate(str(point.row), (x, y), (5, 3), **_SMALL)
            xs, ys = [p.kl or 0.0 for p in points], [0.0 - p.change.mean for p in points]
            axes.plot(xs, ys, label=drawing.label(task), **look)
        axes.set_xlim(left=0)
        axes.set_xlabel("KL(tuned ‖ base) on the task's inputs, nats per token")
        axes.set_ylabel("score lost since its own stage")
        _give_room(axes)
        axes.grid(visible=True, axis="x")
        drawing.legend(axes)


def _give_room(axes: drawing.Axes) -> None:
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -LEAST), max(high, LEAST))
