"""Figures of what the channels brought, lost, moved and cost."""

from typing import TYPE_CHECKING

from fastslow.results.render.drawing import (
    ACCENT,
    INK,
    LOSS,
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
from fastslow.results.report.data import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = (
    ("gain_slow", "gained by weights", ACCENT, "s"),
    ("gain_fast", "gained by text", ACCENT, "o"),
    ("synergy", "synergy", MUTED, "D"),
    ("wf", "lost by weights", LOSS, "s"),
    ("pf", "lost by text", LOSS, "o"),
)
"""Figures of the channel split that are drawn, with their words."""


def split(report: Report) -> Drawing | None:
    """What each channel brought to a task and lost of it."""
    rows = [
        (found.task, words, found.figures[name].value, found.differences.get(name), colour, marker)
        for found in report.splits[:MAX_TASKS]
        for name, words, colour, marker in PARTS
        if found.figures[name].value is not None
    ]
    if not rows:
        return None

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        names, before, at = [], None, -1.0
        ticks = []
        for task, words, value, change, colour, marker in rows:
            at += 1 if task == before else 1.9
            if task != before:
                axes.text(
                    0,
                    at - 0.85,
                    label(task),
                    weight="bold",
                    va="center",
                    transform=axes.get_yaxis_transform(),
                )
            before = task
            assert value is not None
            if change is not None and change.low is not None and change.high is not None:
                axes.plot([change.low, change.high], [at, at], color=colour, lw=1)
            axes.plot(value, at, marker, color=colour)
            ticks.append(at)
            names.append(words)
        axes.axvline(0, color=MUTED, lw=0.8)
        axes.set_yticks(ticks, names)
        axes.set_ylim(at + 0.7, -0.7)
        axes.set_xlabel("score, with 95 % interval")
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.tick_params(axis="y", length=0)

    tasks = len({row[0] for row in rows})
    return draw(
        "split",
        "What weights and text brought, and lost",
        "Gains when the task was learned, against the untouched base under the seed text; losses "
        "since then. The table has the formulas. A figure that is not there is not defined or not "
        "measured; the table says why.",
        paint,
        height=0.8 + 0.2 * len(rows) + 0.2 * tasks,
    )


def kl(report: Report) -> Drawing | None:
    """Score of every trained task against how far the weights have moved on its inputs."""
    moved = {
        (e.task, e.row): e.value
        for e in report.drift
        if e.name == "kl_fst" and e.text == "with_text" and e.value is not None
    }
    lines = {}
    for number, task in enumerate(report.tasks[:MAX_TASKS]):
        points = [
            (value, cell.score, row)
            for row, cell in enumerate(cells[number] for cells in report.cells)
            if (value := moved.get((task, row))) is not None and cell.score is not None
        ]
        if points:
            lines[task] = points
    if not lines:
        return None

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        for task, points in lines.items():
            x, y, _ = zip(*points, strict=True)
            look = series(report.tasks.index(task)) | {"lw": 0.9}
            axes.plot(x, y, label=label(task), **look)
            for at, score, row in points:
                axes.annotate(
                    str(row),
                    (at, score),
                    (4, 3),
                    textcoords="offset points",
                    fontsize=7,
                    color=MUTED,
                )
        axes.set_xlabel("KL(tuned ‖ base), nats per generated token")
        axes.set_xlim(left=min(0.0, *(p[0] for points in lines.values() for p in points)))
        axes.grid(visible=True, axis="x")
        score_axis(axes, "test score")
        legend(axes)

    return draw(
        "kl",
        "KL against score",
        "Divergence from the base (kl_fst) on each task's test inputs under the deployed text, and "
        "the task's score; the small numbers are the stages. Up and to the left is more score for "
        "less change.",
        paint,
        height=2.7 + 0.18 * ((len(lines) + 2) // 3),
    )


def cost(report: Report) -> Drawing | None:
    """Rollouts and seconds, by what they were spent on."""
    parts = ("fast", "slow", "evaluation")
    totals = {
        "rollouts": [float(report.rollouts[part]) for part in parts],
        "seconds": [report.seconds_by[part] for part in parts],
    }
    if not all(sum(values) for values in totals.values()):
        return None

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        colours = (ACCENT, INK, MUTED)
        for row, values in enumerate(totals.values()):
            left = 0.0
            for number, value in enumerate(values):
                share = value / sum(values)
                name = None if row else parts[number]
                axes.barh(
                    row, share, left=left, height=0.5, color=colours[number], label=name,
                    edgecolor=PAPER, linewidth=1.2,
                )  # fmt: skip
                if share > 0.12:
                    text = f"{value:,.0f}"
                    axes.text(left + share / 2, row, text, ha="center", va="center", color=PAPER)
                left += share
        names = [f"{name}\n{sum(values):,.0f}" for name, values in totals.items()]
        axes.set_yticks(range(len(totals)), names)
        axes.set_ylim(1.5, -0.5)
        axes.set_xlim(0, 1)
        axes.set_xticks([])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.tick_params(axis="y", length=0)
        legend(axes)

    return draw(
        "cost",
        "Where rollouts and seconds went",
        "Shares of all completions sampled and of the measured wall time, by channel and "
        "evaluation.",
        paint,
        height=1.7,
    )
