"""The figures of a run's report, and here those of its scores: matrix, tasks, stages, cycles.

Everything drawn is a number that the report has; nothing is computed here but positions on paper.
What the channels did is in `sections/figures_channels.py`, what needs the model itself in
`sections/figures_weights.py`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastslow.measure.stats.intervals import Interval
from fastslow.results.render.drawing import (
    ACCENT,
    INK,
    LINE,
    MAX_TASKS,
    MUTED,
    PAPER,
    Drawing,
    draw,
    label,
    legend,
    score_axis,
    series,
)
from fastslow.results.report.cells import Cell
from fastslow.results.report.data import Report
from fastslow.results.report.sections.figures_channels import cost, kl, split
from fastslow.results.report.sections.figures_weights import geometry, plasticity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = ("matrix", "tasks", "stages", "cycles", "split", "kl", "plasticity", "geometry", "cost")
"""Stems of the files that this package draws, for whoever removes old ones."""
MANY = 6
"""More stages than this, and their names do not fit under an axis."""


def figures(report: Report) -> tuple[Drawing, ...]:
    """Every figure for which there is something to draw, in the order of `NAMES`."""
    made = (
        matrix(report),
        outcomes(report),
        stages(report),
        cycles(report),
        split(report),
        kl(report),
        plasticity(report),
        geometry(report),
        cost(report),
    )
    return tuple(drawing for drawing in made if drawing is not None)


def matrix(report: Report) -> Drawing:
    """The score matrix as a heat map."""
    tasks = report.tasks[:MAX_TASKS]

    def paint(figure: "Figure") -> None:
        from matplotlib.colors import LinearSegmentedColormap

        axes = figure.add_subplot()
        shades = LinearSegmentedColormap.from_list("scores", [PAPER, ACCENT])
        rows = [[cell.score for cell in row[: len(tasks)]] for row in report.cells]
        empty = float("nan")
        values = [[empty if score is None else score * 0.6 for score in row] for row in rows]
        axes.imshow(values, cmap=shades, vmin=0, vmax=1, aspect="auto")
        for i, row in enumerate(report.cells):
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
        axes.set_yticks(range(len(report.cells)), _rows(report))
        axes.tick_params(length=0)

    return draw(
        "matrix",
        "Score matrix",
        "Score of every task (columns) after every stage (rows), with 95 % intervals. Bold: right "
        "after the task's own stage.",
        paint,
        height=1.0 + 0.45 * len(report.cells),
        width=max(4.6, 1.6 + 1.15 * len(tasks)),
    )


def _rows(report: Report) -> list[str]:
    return ["base", *(label(f"{i} {t}") for i, t in enumerate(report.stage_tasks, start=1))]


def outcomes(report: Report) -> Drawing:
    """Each task at the base, when learned, and at the end."""
    shown = report.summaries[:MAX_TASKS]

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        for number, summary in enumerate(shown):
            points = (
                ("base", summary.base, -0.2, MUTED, "o", PAPER),
                ("learned", summary.learned, 0.0, ACCENT, "s", ACCENT),
                ("final", summary.final, 0.2, INK, "D", INK),
            )
            for name, cell, shift, colour, marker, fill in points:
                if cell is None or cell.score is None:
                    continue
                at = number + shift
                if cell.interval is not None:
                    axes.plot([cell.interval.low, cell.interval.high], [at, at], color=colour, lw=1)
                first = None if number else name
                axes.plot(
                    cell.score, at, marker, color=colour, mfc=fill, label=first, clip_on=False
                )
        axes.set_yticks(range(len(shown)), [label(summary.task) for summary in shown])
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("score, with 95 % interval")
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.tick_params(axis="y", length=0)
        legend(axes)

    return draw(
        "tasks",
        "What became of each task",
        "Score with the untouched base, right after the task's own stage, and at the end.",
        paint,
        height=1.2 + 0.45 * len(shown),
    )


def stages(report: Report) -> Drawing:
    """Scores of all tasks over stages, with the points within stages."""
    tasks = report.tasks[:MAX_TASKS]

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        _borders(axes, report.stage_tasks)
        for number, task in enumerate(tasks):
            look = series(number)
            column = [row[number] for row in report.cells]
            known = [(i, c.score) for i, c in enumerate(column) if c.score is not None]
            _whiskers(axes, column, look["color"], (number - len(tasks) / 2) * 0.02)
            axes.plot(*zip(*known, strict=True), label=label(task), **look) if known else None
        for curve in report.curves:
            if curve.curve is None or curve.task not in tasks or not curve.curve.counts[-1]:
                continue
            where = [curve.stage + at / curve.curve.counts[-1] for at in curve.curve.counts]
            look = series(tasks.index(curve.task)) | {"mfc": PAPER, "lw": 0.9, "ls": ":"}
            axes.plot(where[1:-1], curve.curve.means()[1:-1], **look)
        names = _rows(report)
        if len(names) > MANY:
            names = [str(i) for i in range(len(names))]
        axes.set_xticks(range(len(names)), names, fontsize=7.5)
        axes.set_xlabel("after stage")
        score_axis(axes, "test score")
        legend(axes)

    return draw(
        "stages",
        "Scores over stages",
        "Test score of every task after every stage, 95 % intervals; dashed lines are where stages "
        "end. Hollow markers: the stage's own task within the stage, on fewer examples.",
        paint,
        height=2.7 + 0.18 * ((len(tasks) + 2) // 3),
    )


def _borders(axes: "Axes", names: Sequence[str], width: int = 1) -> None:
    for stage in range(len(names) + 1):
        axes.axvline(stage * width, color=LINE, lw=0.8, ls=(0, (4, 3)), zorder=0)


def _whiskers(axes: "Axes", column: Sequence[Cell], colour: str, shift: float) -> None:
    for i, cell in enumerate(column):
        _whisker(axes, i + shift, cell.interval, colour)


def _whisker(axes: "Axes", at: float, interval: Interval | None, colour: str) -> None:
    if interval is not None:
        axes.plot([at, at], [interval.low, interval.high], color=colour, lw=0.8, alpha=0.6)


def cycles(report: Report) -> Drawing | None:
    """What the channels themselves saw, cycle by cycle."""
    points = report.cycles
    found = {
        "texts: best score on the anchor set": [p.best_text for p in points],
        "weights: mean reward of rollouts": [p.reward for p in points],
    }
    if not any(value is not None for values in found.values() for value in values):
        return None

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        for number, (name, values) in enumerate(found.items()):
            known = [(i + 0.5, value) for i, value in enumerate(values) if value is not None]
            if known:
                axes.plot(*zip(*known, strict=True), label=name, **series(number))
        ends = [i for i, p in enumerate(points) if i == 0 or p.stage != points[i - 1].stage]
        for end in (*ends, len(points)):
            axes.axvline(end, color=LINE, lw=0.8, ls=(0, (4, 3)), zorder=0)
        middles = [(a + b) / 2 for a, b in zip(ends, [*ends[1:], len(points)], strict=True)]
        names = [points[end].stage for end in ends]
        if len(names) <= MANY:
            axes.set_xticks(
                middles, [label(f"{i + 1} {report.stage_tasks[i]}") for i in names], fontsize=7.5
            )
        else:
            axes.set_xticks(middles, [str(i + 1) for i in names])
        axes.tick_params(axis="x", length=0)
        axes.set_xlabel("stage, one point per cycle")
        score_axis(axes, "score or reward")
        legend(axes, 1)

    return draw(
        "cycles",
        "Curves per cycle",
        "On training problems, so not comparable with the test scores: the best text's mean score "
        "on each cycle's anchor set, and the mean reward of the rollouts that the weights then "
        "learned from. Dashed lines are where stages end.",
        paint,
        height=3.0,
    )
