"""Routers: where inputs that do not name their task are sent, and what they score there."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from fastslow.records.events import FiguresEvent
from fastslow.results.render.layout import Table, Text, row, score_or_dash
from fastslow.results.report.section import Records, Section
from fastslow.results.report.sections.weights import Measured


class Router(Section):
    """Every router on every task visited, after the last stage; its JSON is that of `Measured`."""

    chapter = "forgetting"

    def __init__(self, records: Records) -> None:
        events = records.section(Measured).of_kind("router")
        self.row = max((event.row for event in events), default=0)
        self.events = [event for event in events if event.row == self.row]
        names = dict.fromkeys(metric.name for event in self.events for metric in event.figures)
        self.routers = [name.removesuffix("/accuracy") for name in names if "/accuracy" in name]

    def tables(self) -> Iterator[Table]:
        yield Table(
            f"Inputs that do not name their task, after stage {self.row}",
            ("router", "inputs of", "n", "accuracy", "routed", "own", "latest"),
            tuple(line for router in self.routers for line in _lines(router, self.events)),
            "accuracy: share of a task's test inputs that the router sends to that task; sending "
            "everything to one task gives 1 over their number on average. routed, own, latest: "
            "score under adapter and prompt of the task they are sent to, of their own task, and "
            "of the latest stage's task, which they get without a router. An accuracy of 1 on "
            "tasks whose inputs differ in shape is no achievement: anything tells those apart. "
            "Only alike tasks put a router to the test.",
        )
        yield Table(
            f"Confusion of the routers after stage {self.row}",
            ("router", "inputs of", *(f"sent to {event.of}" for event in self.events)),
            tuple(
                row(
                    router,
                    event.of,
                    *(
                        score_or_dash(event.numbers.get(f"{router}/sent/{end.of}"))
                        for end in self.events
                    ),
                )
                for router in self.routers
                for event in self.events
            ),
            "Share of each task's inputs that is sent to each task.",
        )


def _lines(router: str, events: Sequence[FiguresEvent]) -> Iterator[tuple[Text, ...]]:
    """A router's line per task, and their mean."""
    names = (f"{router}/accuracy", f"{router}/score", "own/score", "latest/score")
    columns: list[list[float]] = [[] for _ in names]
    for event in events:
        values = {metric.name: metric.value for metric in event.figures}
        cells = []
        for name, column in zip(names, columns, strict=True):
            low, high = (event.numbers.get(f"{name}/{end}") for end in ("low", "high"))
            has_interval = low is not None and high is not None
            brackets = f" [{low:.2f}, {high:.2f}]" if has_interval else ""
            cells.append(score_or_dash(values.get(name)) + brackets)
            column += [value for value in [values.get(name)] if value is not None]
        yield row(router, event.of, f"{event.numbers.get('examples', 0):.0f}", *cells)
    means = [score_or_dash(fmean(column) if column else None) for column in columns]
    yield row(router, "mean of the tasks", "", *means)
