"""Figures of what stages did to the weights: fresh runs on a probe task, geometry of the change."""

import math
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from fastslow.measure.scores.curves import LearningCurve
from fastslow.records.events import FiguresEvent
from fastslow.results.render.drawing import (
    ACCENT,
    MUTED,
    Drawing,
    draw,
    label,
    legend,
    score_axis,
    series,
)
from fastslow.results.report.data import Report
from fastslow.results.report.sections.plasticity import TaskProbe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PROBES = 6
MAX_STAGES = 12
SHARES = {"energy_top1_frac": "1 %", "energy_top5_frac": "5 %", "energy_top10_frac": "10 %"}
"""Shares of the most changed weights whose energy is drawn."""
GAUSSIAN = (0.0845, 0.2791, 0.4393)
"""The same of an update whose entries are Gaussian, as `measure/model/geometry.py` states them."""
RANKS = {"stable_rank": "stable", "effective_rank": "effective"}


def plasticity(report: Report) -> Drawing | None:
    """Curves of fresh runs, from a stage's weights and from the base."""
    probes = report.probes[:MAX_PROBES]
    if not probes:
        return None
    columns = min(2, len(probes))
    lines = math.ceil(len(probes) / columns)

    def paint(figure: "Figure") -> None:
        panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for number, (axes, probe) in enumerate(zip(panels.flat, probes, strict=False)):
            _probe(axes, probe, is_first=number == 0)
        for axes in panels.flat[len(probes) :]:
            axes.set_visible(False)

    return draw(
        "plasticity",
        "Plasticity: fresh runs on a task of no stage",
        "Validation score after so many updates, from the weights of a stage and from the base, "
        "with the same settings, problems and seeds. Thin lines: single seeds. A high start "
        "without a gain is retention or transfer, not plasticity.",
        paint,
        height=0.5 + 2.3 * lines,
    )


def _probe(axes: "Axes", probe: TaskProbe, *, is_first: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    sides: tuple[tuple[str, Sequence[LearningCurve], str, str], ...] = (
        ("from the stage's weights", probe.probe.tuned, ACCENT, "o"),
        ("from the base", probe.probe.base, MUTED, "s"),
    )
    for name, curves, colour, marker in sides:
        means = [curve.means() for curve in curves]
        for values in means if len(means) > 1 else ():
            axes.plot(curves[0].counts, values, color=colour, lw=0.7, alpha=0.5)
        middle = [fmean(values) for values in zip(*means, strict=True)]
        shown = name if is_first else None
        axes.plot(curves[0].counts, middle, marker, ls="-", color=colour, label=shown)
    axes.set_title(f"{label(probe.task)}, after stage {probe.row}", pad=22 if is_first else 6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("updates")
    score_axis(axes, "validation score")
    if is_first:
        legend(axes, 1 if len(probe.task) > 10 else 2)


def geometry(report: Report) -> Drawing | None:
    """How concentrated, and of which rank, the change of each stage is."""
    events = [e for e in report.measured if e.kind == "geometry"][:MAX_STAGES]
    found = [{m.name: m.value for m in event.figures} for event in events]
    if not any(value is not None for figures in found for value in figures.values()):
        return None

    def paint(figure: "Figure") -> None:
        left, right = figure.subplots(1, 2, width_ratios=(3, 2))
        _energy(left, events, found)
        _ranks(right, events, found)
        figure.legend(loc="outside upper left", ncols=2, columnspacing=1.2)

    return draw(
        "geometry",
        "Geometry of each stage's change",
        "Left: share of the change's energy in the 1, 5 and 10 % most changed weights; above the "
        "grey line it is more concentrated than a Gaussian update. Right: stable (lower) and "
        "effective (upper) rank of the change, mean over matrices.",
        paint,
        height=2.6 + 0.18 * ((len(events) + 2) // 2),
    )


def _energy(
    axes: "Axes", events: Sequence[FiguresEvent], found: Sequence[dict[str, float | None]]
) -> None:
    axes.plot(range(len(GAUSSIAN)), GAUSSIAN, color=MUTED, ls=":", label="Gaussian")
    for number, (event, figures) in enumerate(zip(events, found, strict=True)):
        values = [figures.get(name) for name in SHARES]
        known = [(i, value) for i, value in enumerate(values) if value is not None]
        if known:
            axes.plot(*zip(*known, strict=True), label=label(event.of), **series(number))
    axes.set_xticks(range(len(SHARES)), list(SHARES.values()))
    axes.set_xlabel("most changed weights")
    axes.set_ylabel("share of the energy")
    axes.set_ylim(bottom=0)


def _ranks(
    axes: "Axes", events: Sequence[FiguresEvent], found: Sequence[dict[str, float | None]]
) -> None:
    for number, figures in enumerate(found):
        values = [figures.get(name) for name in RANKS]
        known = [value for value in values if value is not None]
        look = series(number) | {"ls": "none"}
        axes.plot([number] * len(known), known, **look)
    axes.set_xticks(range(len(events)), [label(event.of)[:4].split(" ")[0] for event in events])
    axes.set_xlim(-0.6, len(events) - 0.4)
    axes.set_xlabel("stage")
    axes.set_ylabel("rank of the change")
    axes.set_ylim(bottom=0)
