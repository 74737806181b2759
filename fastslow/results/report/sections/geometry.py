"""Geometry of what each stage did to the weights, and what the changes share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from fastslow.records.events import FiguresEvent
from fastslow.results.render.drawing import MUTED, Drawing, draw, label, series
from fastslow.results.render.layout import Table, Text, metric_text
from fastslow.results.report.section import Records, Section
from fastslow.results.report.sections.measured import Measured, figures_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_STAGES = 12
SHARES = {"energy_top1_frac": "1 %", "energy_top5_frac": "5 %", "energy_top10_frac": "10 %"}
"""Shares of the most changed weights whose energy is drawn."""
GAUSSIAN = (0.0845, 0.2791, 0.4393)
"""The same of an update whose entries are Gaussian, as `measure/model/geometry.py` states them."""
RANKS = {"stable_rank": "stable", "effective_rank": "effective"}


@dataclass(frozen=True, slots=True)
class Geometry(Section):
    """Each stage's change and the overlap of two; their JSON is that of `Measured`."""

    changes: tuple[FiguresEvent, ...]
    overlaps: tuple[FiguresEvent, ...]

    chapter = "geometry"
    drawing_names = ("geometry",)

    @classmethod
    def compute(cls, records: Records) -> Self:
        """Take the measurements of these two kinds."""
        measured = records.section(Measured)
        return cls(tuple(measured.of_kind("geometry")), tuple(measured.of_kind("overlap")))

    def tables(self) -> Sequence[Table]:
        """The changes, then their overlaps."""
        overlaps = [
            (
                Text(event.of),
                metric_text(event.figures[0] if event.figures else None, 4),
                Text(f"{event.numbers['chance']:.4f}" if "chance" in event.numbers else "-"),
            )
            for event in self.overlaps
        ]
        return [
            figures_table(
                "Geometry of each stage's change",
                [event.of for event in self.changes],
                self.changes,
                "Of the merged change of all adapted weights, in float32. Energy shares stand next "
                "to counts of unchanged weights, which alone are mostly a matter of the number "
                "format.",
            ),
            Table(
                "Overlap of the stages' changes",
                ("stages", "shared", "by chance"),
                tuple(overlaps),
                "Of the 1 % of weights that either stage changed most, the share that both did "
                "(Jaccard).",
            ),
        ]

    def drawings(self) -> Sequence[Drawing | None]:
        """How concentrated, and of which rank, the change of each stage is."""
        events = self.changes[:MAX_STAGES]
        if not any(metric.value is not None for event in events for metric in event.figures):
            return [None]

        def paint(figure: "Figure") -> None:
            energy, ranks = figure.subplots(1, 2, width_ratios=(3, 2))
            _paint_energy(energy, events)
            _paint_ranks(ranks, events)
            figure.legend(loc="outside upper left", ncols=2, columnspacing=1.2)

        return [
            draw(
                "geometry",
                "Geometry of each stage's change",
                "Left: share of the change's energy in the 1, 5 and 10 % most changed weights; "
                "above the grey line it is more concentrated than a Gaussian update. Right: stable "
                "(lower) and effective (upper) rank of the change, mean over matrices.",
                paint,
                height=2.6 + 0.18 * ((len(events) + 2) // 2),
            )
        ]


def _points(event: FiguresEvent, names: Sequence[str]) -> list[tuple[int, float]]:
    """The figures of these names that have a value, each with its position among the names."""
    values = {metric.name: metric.value for metric in event.figures}
    return [(i, v) for i, name in enumerate(names) if (v := values.get(name)) is not None]


def _paint_energy(axes: "Axes", events: Sequence[FiguresEvent]) -> None:
    axes.plot(range(len(GAUSSIAN)), GAUSSIAN, color=MUTED, ls=":", label="Gaussian")
    for number, event in enumerate(events):
        if points := _points(event, tuple(SHARES)):
            axes.plot(*zip(*points, strict=True), label=label(event.of), **series(number))
    axes.set_xticks(range(len(SHARES)), list(SHARES.values()))
    axes.set_xlabel("most changed weights")
    axes.set_ylabel("share of the energy")
    axes.set_ylim(bottom=0)


def _paint_ranks(axes: "Axes", events: Sequence[FiguresEvent]) -> None:
    for number, event in enumerate(events):
        values = [value for _, value in _points(event, tuple(RANKS))]
        axes.plot([number] * len(values), values, **(series(number) | {"ls": "none"}))
    axes.set_xticks(range(len(events)), [label(event.of)[:4].split(" ")[0] for event in events])
    axes.set_xlim(-0.6, len(events) - 0.4)
    axes.set_xlabel("stage")
    axes.set_ylabel("rank of the change")
    axes.set_ylim(bottom=0)
