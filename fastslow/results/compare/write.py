"""The files of a comparison: compare.html and compare.md for people, compare.json, scores.csv."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastslow.core.errors import ConfigError
from fastslow.core.text import visible
from fastslow.results.compare.data import Comparison, comparison_json
from fastslow.results.compare.tables import comparison_tables, verdicts
from fastslow.results.render.drawing import (
    LOSS,
    MAX_TASKS,
    MUTED,
    PAPER,
    Drawing,
    draw,
    label,
    legend,
    series,
)
from fastslow.results.render.html import render
from fastslow.results.render.markdown import inline, table_lines
from fastslow.results.render.writing import write_figures, write_files
from fastslow.results.report.write import DECIMALS, rounded

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fastslow.results.compare.data import Contrast

NAMES = ("compare-scores", *(f"compare-differences-{number}" for number in range(1, 7)))
"""Stems of the figures."""


def write_comparison(found: Comparison, folder: Path) -> tuple[Path, ...]:
    """Write compare.html, compare.md, compare.json, scores.csv and figures/ into a folder.

    Args:
        found: The comparison.
        folder: Made if need be; files of these names in it are replaced.

    Raises:
        ConfigError: It is a run folder, whose own files these would replace.
        CheckpointError: It cannot be written.
    """
    if (folder / "run.json").exists():
        raise ConfigError(
            f"--out {visible(str(folder))}: a run folder, got run.json in it. Its scores.csv would "
            "be replaced; give another folder."
        )
    drawings = figures(found)
    texts = {
        "compare.html": page(found, drawings),
        "compare.md": markdown(found),
        "compare.json": json_text(found),
        "scores.csv": scores_csv(found),
    }
    write_figures(folder, drawings, NAMES)
    return write_files(folder, {name: text.encode() for name, text in texts.items()})


def json_text(found: Comparison) -> str:
    """The text of compare.json."""
    figures = rounded(comparison_json(found, verdicts(found)))
    assert isinstance(figures, dict)
    settings = {key: list(values) for key, values in found.settings.items()}
    data = figures | {"settings": settings}  # as they were given: 1e-9 is not 0
    return json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n"


def markdown(found: Comparison) -> str:
    """The text of compare.md."""
    lines = [f"# Against {inline(found.arms[0].name)}", ""]
    for verdict in verdicts(found):
        lines += [f"**{inline(verdict)}**", ""]
    for table in comparison_tables(found):
        lines += table_lines(table)
    return "\n".join(lines).rstrip("\n") + "\n"


def scores_csv(found: Comparison) -> str:
    """The text of scores.csv: base, learned and final score of each task in each run."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(["arm", "run", "seed", "task", "phase", "score", "low", "high", "n"])
    for line in found.scores:
        low, high = (line.interval.low, line.interval.high) if line.interval else (None, None)
        numbers = ["" if x is None else f"{x:.{DECIMALS}f}" for x in (line.score, low, high)]
        lines.writerow([line.arm, line.run, line.seed, line.task, line.phase, *numbers, line.n])
    return out.getvalue()


def page(found: Comparison, drawings: Sequence[Drawing]) -> str:
    """The text of compare.html."""
    return render(
        "compare.html",
        {
            "title": f"{found.arms[0].name} compared · fastslow",
            "comparison": found,
            "verdicts": verdicts(found),
            "drawings": drawings,
            "tables": comparison_tables(found),
        },
    )


def figures(found: Comparison) -> tuple[Drawing, ...]:
    """Final scores of all arms, then the differences of each arm from the baseline."""
    made = [_scores(found)]
    made += [
        drawing
        for number, _ in enumerate(found.comparisons[: len(NAMES) - 1])
        if (drawing := _differences(found, number)) is not None
    ]
    return tuple(made)


def _scores(found: Comparison) -> Drawing:
    tasks = found.tasks[:MAX_TASKS]
    step = 0.7 / max(1, len(found.arms))

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        for number, arm in enumerate(found.arms):
            look = series(number) | {"ls": "none"}
            name: str | None = label(arm.name)
            for line in found.scores:
                if line.arm != arm.name or line.phase != "final" or line.task not in tasks:
                    continue
                at = tasks.index(line.task) + (number - (len(found.arms) - 1) / 2) * step
                if line.score is None:
                    continue
                if line.interval is not None:
                    ends = [line.interval.low, line.interval.high]
                    axes.plot(ends, [at, at], color=look["color"], lw=1)
                axes.plot(line.score, at, label=name, clip_on=False, **look)
                name = None
        axes.set_yticks(range(len(tasks)), [label(task) for task in tasks])
        axes.set_ylim(len(tasks) - 0.5, -0.5)
        axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel("score at the end, with 95 % interval")
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.tick_params(axis="y", length=0)
        legend(axes, 2)

    return draw(
        NAMES[0],
        "Scores at the end",
        "Final score of every task in every run, each run with its own 95 % interval. Whether two "
        "differ is read from the paired differences, not from whether these overlap.",
        paint,
        height=1.1 + len(tasks) * (0.2 + 0.14 * len(found.arms)) + 0.18 * (len(found.arms) // 2),
    )


def _differences(found: Comparison, number: int) -> Drawing | None:
    comparison = found.comparisons[number]
    words = {"final": "at the end", "learned": "learned", "change": "forgetting"}
    rows: list[tuple[str, str, Contrast]] = [
        (contrast.name, words[quantity], contrast)
        for task in found.tasks[:MAX_TASKS]
        for quantity, contrasts in comparison.tasks.items()
        for contrast in contrasts
        if contrast.name == task and contrast.difference is not None
    ]
    if not rows:
        return None

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        at, before, ticks = -1.0, "", []
        for task, _, contrast in rows:
            at += 1 if task == before else 1.9
            if task != before:
                place = axes.get_yaxis_transform()
                axes.text(0, at - 0.85, label(task), weight="bold", va="center", transform=place)
            before = task
            assert contrast.difference is not None
            colour = MUTED
            if contrast.is_beyond_chance:
                colour = series(0)["color"] if contrast.difference > 0 else LOSS
            if contrast.low is not None and contrast.high is not None:
                axes.plot([contrast.low, contrast.high], [at, at], color=colour, lw=1)
            fill = colour if contrast.is_beyond_chance else PAPER
            axes.plot(contrast.difference, at, "o", color=colour, mfc=fill)
            ticks.append(at)
        axes.axvline(0, color=MUTED, lw=0.8)
        axes.set_yticks(ticks, [row[1] for row in rows])
        axes.set_ylim(at + 0.7, -0.7)
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, -0.1), max(high, 0.1))
        axes.set_xlabel("difference of scores, with 95 % interval")
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.tick_params(axis="y", length=0)

    tasks = len({row[0] for row in rows})
    return draw(
        NAMES[number + 1],
        f"{label(comparison.arm)} against {label(found.arms[0].name)}",
        "Paired differences of each task; right of zero is better, for forgetting too. Filled: "
        "beyond chance at 5 % after Holm's correction over tasks.",
        paint,
        height=0.8 + 0.2 * len(rows) + 0.2 * tasks,
    )
