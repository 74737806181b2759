"""The score matrix, and how the scores went over the stages."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from fastslow.results.render.drawing import (
    ACCENT,
    LINE,
    MANY,
    MAX_TASKS,
    PAPER,
    Drawing,
    draw,
    label,
    legend,
    score_axis,
    series,
)
from fastslow.results.render.encoding import DECIMALS
from fastslow.results.render.layout import Table, Text, brackets
from fastslow.results.report.cells import Cell
from fastslow.results.report.section import Records, Section, stage_label
from fastslow.results.report.sections.curves import Curves, StageCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Scores(Section):
    """The score of every task after every stage."""

    tasks: tuple[str, ...]
    stages: tuple[str, ...]
    cells: tuple[tuple[Cell, ...], ...]

    chapter = ""
    drawing_names = ("matrix",)

    @classmethod
    def compute(cls, records: Records) -> Self:
        """Take the cells as they are."""
        return cls(records.card.tasks, records.card.stages, records.cells)

    def to_json(self) -> Mapping[str, object]:
        """The cells whole, and their scores alone."""
        return {"scores": [[cell.score for cell in row] for row in self.cells], "cells": self.cells}

    def csv(self) -> str:
        """The text of scores.csv: one line per cell; empty where not measured."""
        out = io.StringIO()
        lines = csv.writer(out, lineterminator="\n")
        lines.writerow(["row", "after", "task", "phase", "prompt", "score", "low", "high", "n"])
        for row, cells in enumerate(self.cells):
            after = self.stages[row - 1] if row else "base"
            for task, cell in zip(self.tasks, cells, strict=True):
                ends = (cell.interval.low, cell.interval.high) if cell.interval else (None, None)
                numbers = ["" if x is None else f"{x:.{DECIMALS}f}" for x in (cell.score, *ends)]
                lines.writerow([row, after, task, cell.phase, cell.prompt_policy, *numbers, cell.n])
        return out.getvalue()

    def tables(self) -> Sequence[Table]:
        """One row per row of the matrix."""
        labels = ["0 base", *(stage_label(i, task) for i, task in enumerate(self.stages))]
        rows = [
            (Text(name, "plain" if row else "strong"), *(score_text(cell) for cell in cells))
            for row, (name, cells) in enumerate(zip(labels, self.cells, strict=True))
        ]
        return [
            Table(
                "Score matrix",
                ("after stage", *self.tasks),
                tuple(rows),
                "Rows: when measured; row 0 is the untouched base. Columns: tasks. * right after "
                "its own stage; ( ) not trained on yet, or held out, scored with the seed prompt. "
                "Brackets: 95 % interval.",
            )
        ]

    def drawings(self) -> Sequence[Drawing]:
        """A heat map."""
        tasks = self.tasks[:MAX_TASKS]
        return [
            draw(
                "matrix",
                "Score matrix",
                "Score of every task (columns) after every stage (rows), with 95 % intervals. "
                "Bold: right after the task's own stage.",
                self._paint,
                height=1.0 + 0.45 * len(self.cells),
                width=max(4.6, 1.6 + 1.15 * len(tasks)),
            )
        ]

    def _paint(self, figure: "Figure") -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axes, tasks = figure.add_subplot(), self.tasks[:MAX_TASKS]
        shades = LinearSegmentedColormap.from_list("scores", [PAPER, ACCENT])
        scores = [[cell.score for cell in row[: len(tasks)]] for row in self.cells]
        empty = float("nan")
        values = [[empty if score is None else score * 0.6 for score in row] for row in scores]
        axes.imshow(values, cmap=shades, vmin=0, vmax=1, aspect="auto")
        for i, row in enumerate(self.cells):
            for j, cell in enumerate(row[: len(tasks)]):
                text = "-" if cell.score is None else f"{cell.score:.2f}"
                weight = "bold" if cell.phase == "learned" else "normal"
                axes.text(j, i - 0.1, text, ha="center", va="center", weight=weight)
                if cell.interval is not None:
                    ends = f"{cell.interval.low:.2f} to {cell.interval.high:.2f}"
                    axes.text(j, i + 0.26, ends, ha="center", va="center", fontsize=6.5)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.xaxis.tick_top()
        axes.set_xticks(range(len(tasks)), [label(task) for task in tasks], fontsize=7.5)
        axes.set_yticks(range(len(self.cells)), _row_labels(self.stages))
        axes.tick_params(length=0)


def score_text(cell: Cell) -> Text:
    """A cell of the matrix with its interval, marked by its phase."""
    if cell.score is None:
        return Text("not measured", "dim")
    interval = brackets(cell.interval)
    if cell.phase == "learned":
        return Text(f"{cell.score:.2f}*{interval}", "strong")
    if cell.phase == "seen":
        return Text(f"{cell.score:.2f}{interval}")
    return Text(f"({cell.score:.2f}){interval}", "dim")


def _row_labels(stages: Sequence[str]) -> list[str]:
    return ["base", *(label(stage_label(i, task)) for i, task in enumerate(stages))]


@dataclass(frozen=True, slots=True)
class ScoresOverStages(Section):
    """The same scores as lines, with the points within stages."""

    scores: Scores
    curves: tuple[StageCurve, ...]

    chapter = "scores"
    drawing_names = ("stages",)

    @classmethod
    def compute(cls, records: Records) -> Self:
        """Put the cells and the learning curves together."""
        return cls(records.section(Scores), records.section(Curves).curves)

    def drawings(self) -> Sequence[Drawing]:
        """One line per task."""
        tasks = self.scores.tasks[:MAX_TASKS]
        return [
            draw(
                "stages",
                "Scores over stages",
                "Test score of every task after every stage, 95 % intervals; dashed lines are "
                "where stages end. Hollow markers: the stage's own task within the stage, on fewer "
                "examples.",
                self._paint,
                height=2.7 + 0.18 * ((len(tasks) + 2) // 3),
            )
        ]

    def _paint(self, figure: "Figure") -> None:
        axes, stages = figure.add_subplot(), self.scores.stages
        for end in range(len(stages) + 1):
            axes.axvline(end, color=LINE, lw=0.8, ls=(0, (4, 3)), zorder=0)
        for number in range(len(self.scores.tasks[:MAX_TASKS])):
            self._paint_task(axes, number)
        self._paint_curves(axes)
        names = _row_labels(stages)
        if len(names) > MANY:
            names = [str(i) for i in range(len(names))]
        axes.set_xticks(range(len(names)), names, fontsize=7.5)
        axes.set_xlabel("after stage")
        score_axis(axes, "test score")
        legend(axes)

    def _paint_task(self, axes: "Axes", number: int) -> None:
        """One column of the matrix, its intervals a little aside of its points."""
        tasks, look = self.scores.tasks[:MAX_TASKS], series(number)
        column = [row[number] for row in self.scores.cells]
        for i, cell in enumerate(column):
            if cell.interval is not None:
                x = i + (number - len(tasks) / 2) * 0.02
                ends = [cell.interval.low, cell.interval.high]
                axes.plot([x, x], ends, color=look["color"], lw=0.8, alpha=0.6)
        points = [(i, cell.score) for i, cell in enumerate(column) if cell.score is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=label(tasks[number]), **look)

    def _paint_curves(self, axes: "Axes") -> None:
        """The points within each stage; its ends are points of the matrix."""
        tasks = self.scores.tasks[:MAX_TASKS]
        for stage in self.curves:
            curve = stage.curve
            if curve is None or stage.task not in tasks or not curve.at[-1]:
                continue
            x = [stage.stage + count / curve.at[-1] for count in curve.at]
            look = series(tasks.index(stage.task)) | {"mfc": PAPER, "lw": 0.9, "ls": ":"}
            axes.plot(x[1:-1], curve.means()[1:-1], **look)
