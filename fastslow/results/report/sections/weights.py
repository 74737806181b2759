"""Tables of what each stage did to the weights and units of the model."""

from collections.abc import Sequence

from fastslow.core.types import Metric
from fastslow.records.events import FiguresEvent
from fastslow.results.render.layout import Table, Text
from fastslow.results.report.data import Report
from fastslow.results.report.sections.forgetting import value_or_reason


def weight_tables(report: Report) -> list[Table]:
    """Geometry of each stage's change, what the changes share, and proxies of plasticity."""
    by_kind: dict[str, list[FiguresEvent]] = {"geometry": [], "overlap": [], "proxies": []}
    for event in report.measured:
        by_kind[event.kind].append(event)
    inputs = dict.fromkeys(event.of for event in by_kind["proxies"])
    return [
        _figures(
            "Geometry of each stage's change",
            [event.of for event in by_kind["geometry"]],
            by_kind["geometry"],
            "Of the merged change of all adapted weights, in float32. Energy shares stand beside "
            "counts of unchanged weights, which alone are mostly a matter of the number format.",
        ),
        _overlaps(by_kind["overlap"]),
        _figures(
            "Proxies of plasticity",
            [f"row {event.row}" for event in by_kind["proxies"]],
            by_kind["proxies"],
            f"On {'; '.join(inputs)}. Correlates of lost plasticity in small networks, no proof: "
            "the probe is the measurement.",
        ),
    ]


def _figures(
    title: str, columns: Sequence[str], events: Sequence[FiguresEvent], note: str
) -> Table:
    names = dict.fromkeys(metric.name for event in events for metric in event.figures)
    found = [{metric.name: metric for metric in event.figures} for event in events]
    rows = []
    for name in names:
        known = next(figures[name] for figures in found if name in figures)
        cells = (_value(figures.get(name)) for figures in found)
        rows.append((Text(name, is_code=True), *cells, Text(known.formula, is_code=True)))
    return Table(title, ("figure", *columns, "formula"), tuple(rows), note)


def _value(metric: Metric | None) -> Text:
    return Text("-", "dim") if metric is None else value_or_reason(metric, 4)


def _overlaps(events: Sequence[FiguresEvent]) -> Table:
    return Table(
        "Overlap of the stages' changes",
        ("stages", "shared", "by chance"),
        tuple(
            (
                Text(event.of),
                value_or_reason(event.figures[0], 4),
                Text(f"{event.numbers['chance']:.4f}"),
            )
            for event in events
        ),
        "Of the 1 % of weights that either stage changed most, the share that both did (Jaccard).",
    )
