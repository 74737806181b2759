"""The score matrix, and how the scores went over the stages."""

from collections.abc import Iterator, Mapping, Sequence

from fastslow.core.text import shorten
from fastslow.measure.scores.guessing import Guess
from fastslow.records.cells import Cell
from fastslow.results.render import drawing
from fastslow.results.render.encoding import ends
from fastslow.results.render.layout import Table, Text, brackets, row
from fastslow.results.render.writing import csv_text
from fastslow.results.report.section import Records, Section, stage_label
from fastslow.results.report.sections.curves import Curves
from fastslow.results.report.sections.route import Route

ANSWER = 16
"""Characters of an answer in a table."""
GUESS_NOTE = (
    " Constant answer: the commonest of the train split, given to every test example. Uniform "
    "guess: any of its distinct answers, all alike. Chance is the higher of the two."
)

ROUTE_NOTE = " Routed: the hardest questions by a signal answered by another arm; see the route."


class Scores(Section):
    """The score of every task after every stage."""

    chapter = ""
    drawing_name = "matrix"

    def __init__(self, records: Records) -> None:
        self.tasks, self.stages = records.card.tasks, records.card.stages
        self.cells, self.guesses = records.cells, records.guesses
        self.route = records.section(Route)

    def to_json(self) -> Mapping[str, object]:
        scores = [[cell.score for cell in row] for row in self.cells]
        guesses = {task: guess_json(guess) for task, guess in self.guesses.items()}
        return {"scores": scores, "cells": self.cells, "guesses": guesses}

    def csv(self) -> str:
        """The text of scores.csv: one line per cell; empty where not measured."""
        header = ("row", "after", "task", "phase", "prompt", "score", "low", "high", "n")
        after = ("base", *self.stages)
        rows = [
            (i, after[i], task, c.phase, c.prompt_policy, c.score, *ends(c.interval), c.n)
            for i, cells in enumerate(self.cells)
            for task, c in zip(self.tasks, cells, strict=True)
        ]
        return csv_text(header, rows)

    def tables(self) -> Iterator[Table]:
        yield self._table(
            "Rows: when measured; row 0 is the untouched base. Columns: tasks. * right after its "
            "own stage; ( ) not trained on yet, or held out, scored with the seed prompt. "
            f"Brackets: 95 % interval.{ROUTE_NOTE if self.route.by_task else ''}"
            f"{GUESS_NOTE if self.guesses else ''}"
        )

    def short_table(self) -> Table:
        """The matrix for one screen."""
        guesses = " Last rows: what guessing scores." if self.guesses else ""
        return self._table(f"* right after its own stage; ( ) not trained on yet.{guesses}")

    def _table(self, note: str) -> Table:
        labels = ["0 base", *(stage_label(i, task) for i, task in enumerate(self.stages))]
        rows = [
            (Text(name, "plain" if i else "strong"), *(score_text(cell) for cell in cells))
            for i, (name, cells) in enumerate(zip(labels, self.cells, strict=True))
        ]
        return Table(
            "Score matrix",
            ("after stage", *self.tasks),
            (*rows, *self.route.matrix_row(self.tasks), *guess_rows(self.guesses, self.tasks)),
            note,
        )

    def draw(self) -> drawing.Drawing:
        if len(self.stages) > drawing.MAX_STAGES:
            return drawing.draw(
                self.drawing_name,
                "Score matrix",
                "Score of every task (columns) after every stage (rows), the darker the higher: "
                "black is 1, white is 0. The table has the numbers.",
                self._paint_shades,
                height=drawing.WIDTH,
            )
        return drawing.draw(
            self.drawing_name,
            "Score matrix",
            "Score of every task (columns) after every stage (rows), with 95 % intervals. Bold: "
            "right after the task's own stage.",
            self._paint,
            height=1.0 + 0.45 * len(self.cells),
            width=max(4.6, 1.6 + 1.15 * len(self.tasks[: drawing.MAX_TASKS])),
        )

    def _paint(self, figure: drawing.Figure) -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axes, tasks = figure.add_subplot(), self.tasks[: drawing.MAX_TASKS]
        shades = LinearSegmentedColormap.from_list("scores", [drawing.PAPER, drawing.ACCENT])
        values = self._numbers(len(tasks))
        axes.imshow(values, cmap=shades, vmin=0, vmax=1 / 0.6, aspect="auto")
        for i, cells in enumerate(self.cells):
            for j, cell in enumerate(cells[: len(tasks)]):
                text = "-" if cell.score is None else f"{cell.score:.2f}"
                weight = "bold" if cell.phase == "learned" else "normal"
                axes.text(j, i - 0.1, text, ha="center", va="center", weight=weight)
                if cell.interval is not None:
                    limits = f"{cell.interval.low:.2f} to {cell.interval.high:.2f}"
                    axes.text(j, i + 0.26, limits, ha="center", va="center", fontsize=6.5)
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.xaxis.tick_top()
        axes.set_xticks(range(len(tasks)), [drawing.label(task) for task in tasks], fontsize=7.5)
        axes.set_yticks(range(len(self.cells)), _row_labels(self.stages))
        axes.tick_params(length=0)

    def _paint_shades(self, figure: drawing.Figure) -> None:
        axes = figure.add_subplot()
        axes.imshow(self._numbers(), cmap="Greys", vmin=0, vmax=1, aspect="auto")
        axes.grid(visible=False)
        axes.set_xlabel("task, in the order of the table")
        axes.set_ylabel("after stage")

    def _numbers(self, num_tasks: int | None = None) -> list[list[float]]:
        """Scores of the first tasks; NaN where not measured."""
        return [
            [float("nan") if cell.score is None else cell.score for cell in row[:num_tasks]]
            for row in self.cells
        ]


def guess_rows(guesses: Mapping[str, Guess], tasks: Sequence[str]) -> Iterator[tuple[Text, ...]]:
    """What guessing scores on each task, as two rows of a table; none where it was not graded."""
    if guesses:
        by_task = [guesses.get(task) for task in tasks]
        yield row("constant answer", *map(_constant_text, by_task))
        yield row("uniform guess", *map(_uniform_text, by_task))


def _constant_text(guess: Guess | None) -> str:
    if guess is None:
        return "-"
    return f"{guess.constant_score:.2f} '{shorten(guess.answer, ANSWER)}'"


def _uniform_text(guess: Guess | None) -> Text:
    if guess is None or guess.uniform_score is None:
        return Text("-" if guess is None else f"- ({guess.reason})", "dim")
    return Text(f"{guess.uniform_score:.2f} (1 of {guess.num_answers})")


def guess_json(guess: Guess) -> dict[str, object]:
    """What guessing scores on a task, as plain data."""
    return {
        "answer": guess.answer,
        "constant": guess.constant_score,
        "uniform": guess.uniform_score,
        "reason": guess.reason,
        "num_answers": guess.num_answers,
        "num_gold": guess.num_gold,
    }


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
    return ["base", *(drawing.label(stage_label(i, task)) for i, task in enumerate(stages))]


class ScoresOverStages(Section):
    """The same scores as lines, with the points within stages."""

    chapter = "scores"
    drawing_name = "stages"

    def __init__(self, records: Records) -> None:
        self.tasks, self.stages = records.card.tasks[: drawing.MAX_TASKS], records.card.stages
        self.cells, self.curves = records.cells, records.section(Curves).curves
        self.guesses = records.guesses
        self.is_long = len(self.stages) > drawing.MAX_STAGES

    def draw(self) -> drawing.Drawing:
        marks = "95 % intervals; dashed lines are where stages end"
        if self.is_long:
            marks = f"of the first {len(self.tasks)} tasks"
        return drawing.draw(
            self.drawing_name,
            "Scores over stages",
            f"Test score of every task after every stage, {marks}. Hollow markers: the stage's own "
            "task within the stage, on fewer examples."
            + drawing.GUESS_CAPTION
            * bool(self.guesses),
            self._paint,
            height=2.7 + 0.18 * ((len(self.tasks) + 2) // 3),
        )

    def _paint(self, figure: drawing.Figure) -> None:
        axes, names = figure.add_subplot(), _row_labels(self.stages)
        if not self.is_long:
            drawing.stage_ends(axes, range(len(names)))
        for number in range(len(self.tasks)):
            self._paint_task(axes, number)
        self._paint_curves(axes)
        if len(names) > drawing.MANY:
            names = [str(i) for i in range(len(names))]
        if not self.is_long:
            axes.set_xticks(range(len(names)), names, fontsize=7.5)
        axes.set_xlabel("after stage")
        drawing.score_axis(axes, "test score")
        drawing.legend(axes)

    def _paint_task(self, axes: drawing.Axes, number: int) -> None:
        """One column of the matrix, its intervals a little aside of its points."""
        name, look = drawing.label(self.tasks[number]), drawing.series(number)
        column = [row[number] for row in self.cells]
        if self.is_long:
            look |= {"marker": "", "lw": 0.8}
        for i, cell in enumerate(column):
            if cell.interval is not None and not self.is_long:
                x, limits = i + (number - len(self.tasks) / 2) * 0.02, cell.interval
                axes.plot([x, x], [limits.low, limits.high], color=look["color"], lw=0.8, alpha=0.6)
        if (guess := self.guesses.get(self.tasks[number])) is not None:
            drawing.guess_lines(axes, guess, look["color"])
        points = [(i, cell.score) for i, cell in enumerate(column) if cell.score is not None]
        if points:
            axes.plot(*zip(*points, strict=True), label=name, **look)

    def _paint_curves(self, axes: drawing.Axes) -> None:
        """The points within each stage; its ends are points of the matrix."""
        for stage in self.curves:
            curve = stage.curve
            if curve is not None and stage.task in self.tasks and curve.counts[-1]:
                x = [stage.stage + count / curve.counts[-1] for count in curve.counts]
                look = drawing.series(self.tasks.index(stage.task))
                look |= {"mfc": drawing.PAPER, "lw": 0.9, "ls": ":"}
                axes.plot(x[1:-1], curve.means()[1:-1], **look)
