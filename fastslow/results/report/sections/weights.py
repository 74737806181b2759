"""Figures that needed the model itself: geometry, overlaps, proxies, measures of the user's own."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields

from fastslow.core.types import Metric
from fastslow.measure.stats.intervals import Interval
from fastslow.records.events import FiguresEvent
from fastslow.results.render import drawing
from fastslow.results.render.layout import Table, figure_row, metric_text, row
from fastslow.results.report.section import Records, Section

WITH_SECTION = (
    *("geometry", "overlap", "proxies", "route", "router"),
    *("concentration", "keep_curve", "bridge", "adherence"),
)
"""Kinds of figures that have a section of their own."""
MODULES = re.compile(r"(?<=layers )[A-Za-z_]\w*(?:\.\w+)+(?:, [A-Za-z_]\w*(?:\.\w+)+)*")
"""A list of names of modules in a formula."""
MAX_STAGES = 12
"""Stages drawn; the tables have all of them."""
GROUPED = 0.1
"""Stages whose changes overlap by so much are one group. Source: CPI-FT, arXiv 2508.21741."""
SHARES = {"energy_top1_frac": "1 %", "energy_top5_frac": "5 %", "energy_top10_frac": "10 %"}
"""Shares of the most changed weights whose energy is drawn."""
GAUSSIAN = (0.0845, 0.2791, 0.4393)
"""The same of an update whose entries are Gaussian, as `measure/model/geometry.py` states them."""
RANKS = ("stable_rank", "effective_rank")


class Measured(Section):
    """The last measurement of each kind, row and inputs; a table for each kind without section."""

    def __init__(self, records: Records) -> None:
        events = records.events_of(FiguresEvent)
        self.events = list({(e.kind, e.row, e.of): e for e in events}.values())

    def of_kind(self, kind: str) -> list[FiguresEvent]:
        """Those of one kind."""
        return [event for event in self.events if event.kind == kind]

    def to_json(self) -> Mapping[str, object]:
        return {
            "measured": [
                {f.name: getattr(event, f.name) for f in fields(event)}
                | {"figures": {metric.name: metric for metric in event.figures}}
                for event in self.events
            ]
        }

    def tables(self) -> Iterator[Table]:
        for kind in dict.fromkeys(event.kind for event in self.events):
            if kind not in WITH_SECTION and any(event.figures for event in self.of_kind(kind)):
                yield _plain_table(kind, self.of_kind(kind))


def limits(event: FiguresEvent, name: str) -> Interval | None:
    """The interval of a figure, which stands among the event's numbers."""
    low, high = (event.numbers.get(f"{name}/{end}") for end in ("low", "high"))
    return None if low is None or high is None else Interval(low, high, "normal")


def _plain_table(title: str, events: Sequence[FiguresEvent]) -> Table:
    """One row per event, one column per figure and its interval; the note has the formulas."""
    formulas, by_event = _by_name(events)
    rows = [
        row(
            event.row,
            event.of,
            *(metric_text(metrics.get(name), 4, limits(event, name)) for name in formulas),
        )
        for event, metrics in zip(events, by_event, strict=True)
    ]
    note = " ".join(f"{name}: {formula}." for name, formula in formulas.items())
    return Table(title, ("row", "measured on", *formulas), tuple(rows), note)


def _by_name(events: Sequence[FiguresEvent]) -> tuple[dict[str, str], list[dict[str, Metric]]]:
    """The formula of each figure, and the figures of each event."""
    formulas: dict[str, str] = {}
    for metric in (metric for event in events for metric in event.figures):
        formulas.setdefault(metric.name, metric.formula)
    return formulas, [{metric.name: metric for metric in event.figures} for event in events]


def _folded(formulas: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Formulas with every list of modules as their number, and a sentence that says which."""
    lists = dict.fromkeys(match[0] for f in formulas.values() for match in MODULES.finditer(f))
    names = [modules.split(", ") for modules in lists]
    which = "".join(f" {len(n)} modules: {n[0]} to {n[-1]}." for n in names)
    short = {
        name: MODULES.sub(lambda modules: f"{modules[0].count(', ') + 1} modules", formula)
        for name, formula in formulas.items()
    }
    return short, which


def _table(
    title: str, columns: Sequence[str], events: Sequence[FiguresEvent], note: str = ""
) -> Table:
    """One row per figure, one column per event, and the formulas."""
    formulas, by_event = _by_name(events)
    formulas, modules = _folded(formulas)
    rows = [
        figure_row(name, formula, *(metric_text(metrics.get(name), 4) for metrics in by_event))
        for name, formula in formulas.items()
    ]
    return Table(title, ("figure", *columns, "formula"), tuple(rows), note + modules)


class Geometry(Section):
    """Each stage's change and the overlap of two; their JSON is that of `Measured`."""

    chapter = "geometry"
    drawing_name = "geometry"

    def __init__(self, records: Records) -> None:
        measured = records.section(Measured)
        self.changes, self.overlaps = measured.of_kind("geometry"), measured.of_kind("overlap")

    def tables(self) -> Iterator[Table]:
        yield _table(
            "Geometry of each stage's change",
            [event.of for event in self.changes],
            self.changes,
            "Of the merged change of all adapted weights, in float32. Energy shares stand next to "
            "counts of unchanged weights, which alone are mostly a matter of the number format.",
        )
        overlaps = [
            row(
                event.of,
                metric_text(event.figures[0] if event.figures else None, 4),
                f"{event.numbers['chance']:.4f}" if "chance" in event.numbers else "-",
            )
            for event in self.overlaps
        ]
        yield Table(
            "Overlap of the stages' changes",
            ("stages", "shared", "at random"),
            tuple(overlaps),
            "Of the 1 % of weights that either stage changed most, the share that both did "
            "(Jaccard). " + self._groups_text(),
        )

    def _groups_text(self) -> str:
        """Which stages change the same weights, as CPI-FT groups tasks (arXiv 2508.21741)."""
        pairs = [
            event.of.split(" and ")
            for event in self.overlaps
            if event.figures and (event.figures[0].value or 0.0) >= GROUPED
        ]
        groups = connected([event.of for event in self.changes], pairs)
        listed = "; ".join(", ".join(group) for group in groups)
        return f"Groups, joined from {GROUPED:g} on as in arXiv 2508.21741: {listed}."

    def draw(self) -> drawing.Drawing | None:
        events = self.changes[:MAX_STAGES]
        if not any(metric.value is not None for event in events for metric in event.figures):
            return None

        def paint(figure: drawing.Figure) -> None:
            energy, ranks = figure.subplots(1, 2, width_ratios=(3, 2))
            _paint_energy(energy, events)
            _paint_ranks(ranks, events)
            figure.legend(loc="outside upper left", ncols=2, columnspacing=1.2)

        return drawing.draw(
            self.drawing_name,
            "Geometry of each stage's change",
            "Left: share of the change's energy in the 1, 5 and 10 % most changed weights; above "
            "the grey line it is more concentrated than a Gaussian update. Right: stable (lower) "
            "and effective (upper) rank of the change, mean over matrices.",
            paint,
            height=2.6 + 0.18 * ((len(events) + 2) // 2),
        )


def _points(event: FiguresEvent, names: Sequence[str]) -> list[tuple[int, float]]:
    """The figures of these names that have a value, each with its position among the names."""
    values = {metric.name: metric.value for metric in event.figures}
    return [(i, v) for i, name in enumerate(names) if (v := values.get(name)) is not None]


def connected(names: Sequence[str], pairs: Sequence[Sequence[str]]) -> list[list[str]]:
    """The names in groups that pairs connect, in the order of the names."""
    group_of = {name: name for name in names}
    for first, second in pairs:
        merged, old = group_of[first], group_of[second]
        group_of = {name: merged if group == old else group for name, group in group_of.items()}
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(group_of[name], []).append(name)
    return list(groups.values())


def _paint_energy(axes: drawing.Axes, events: Sequence[FiguresEvent]) -> None:
    axes.plot(range(len(GAUSSIAN)), GAUSSIAN, color=drawing.MUTED, ls=":", label="Gaussian")
    for number, event in enumerate(events):
        name, look = drawing.label(event.of), drawing.series(number)
        if points := _points(event, tuple(SHARES)):
            axes.plot(*zip(*points, strict=True), label=name, **look)
    axes.set_xticks(range(len(SHARES)), list(SHARES.values()))
    axes.set_xlabel("most changed weights")
    axes.set_ylabel("share of the energy")
    axes.set_ylim(bottom=0)


def _paint_ranks(axes: drawing.Axes, events: Sequence[FiguresEvent]) -> None:
    for number, event in enumerate(events):
        values = [value for _, value in _points(event, RANKS)]
        axes.plot([number] * len(values), values, **(drawing.series(number) | {"ls": "none"}))
    names = [drawing.label(event.of)[:4].split(" ")[0] for event in events]
    axes.set_xticks(range(len(events)), names)
    axes.set_xlim(-0.6, len(events) - 0.4)
    axes.set_xlabel("stage")
    axes.set_ylabel("rank of the change")
    axes.set_ylim(bottom=0)


class Proxies(Section):
    """Proxies of plasticity in each row; their JSON is that of `Measured`."""

    chapter = "plasticity"

    def __init__(self, records: Records) -> None:
        self.events = records.section(Measured).of_kind("proxies")

    def tables(self) -> Iterator[Table]:
        inputs = dict.fromkeys(event.of for event in self.events)
        yield _table(
            "Proxies of plasticity",
            [f"row {event.row}" for event in self.events],
            self.events,
            f"On {'; '.join(inputs)}. Correlates of lost plasticity in small networks, not a "
            "proof: the probe is the measurement.",
        )
