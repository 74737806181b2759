"""Routers: where inputs that do not name their task are sent, and what they score there."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from fastslow.records.events import FiguresEvent
from fastslow.results.render.layout import Table, Text, row, score_or_dash
from fastslow.results.report.section import Records, Section
from fastslow.results.report.sections.weights import Measured

COLUMNS = ("accuracy", "routed", "own", "latest")


@dataclass(frozen=True, slots=True)
class Routing:
    """What a router does with the test inputs of one task after one stage."""

    row: int
    """Row of the score matrix."""
    task: str
    router: str
    n: int
    """Inputs."""
    figures: Mapping[str, Mapping[str, float | None]]
    """`value`, `low` and `high` of each of `COLUMNS`; None where there is no interval."""
    sent: Mapping[str, float]
    """Share of the inputs that is sent to each task."""


class Router(Section):
    """Every router on every visited task, from the stage of the second task on."""

    chapter = "forgetting"

    def __init__(self, records: Records) -> None:
        events = records.section(Measured).of_kind("router")
        self.routings = [routing for event in events for routing in _routings(event)]

    def to_json(self) -> Mapping[str, object]:
        # no key at all without a router, so that reports of other runs stay as they are
        return {"routers": self.routings} if self.routings else {}

    def tables(self) -> Iterator[Table]:
        last = max((routing.row for routing in self.routings), default=0)
        by_router: dict[str, list[Routing]] = {}
        for routing in self.routings:
            if routing.row == last:
                by_router.setdefault(routing.router, []).append(routing)
        lines = [line for routings in by_router.values() for line in _lines(routings)]
        yield Table(
            f"Inputs that do not name their task, after stage {last}",
            ("router", "inputs of", "n", *COLUMNS),
            tuple(lines),
            "accuracy: share of a task's test inputs that the router sends to that task. routed, "
            "own, latest: their score under adapter and prompt of the task they are sent to, of "
            "their own task, and of the latest stage's task, which they get without a router. An "
            "accuracy of 1 on tasks whose inputs differ in shape is no achievement: anything tells "
            "those apart. Only alike tasks put a router to the test.",
        )
        current = [routing for routings in by_router.values() for routing in routings]
        tasks = tuple(dict.fromkeys(routing.task for routing in current))
        yield Table(
            f"Confusion of the routers after stage {last}",
            ("router", "inputs of", *(f"sent to {task}" for task in tasks)),
            tuple(
                row(r.router, r.task, *(score_or_dash(r.sent.get(task)) for task in tasks))
                for r in current
            ),
            "Share of each task's inputs that is sent to each task.",
        )


def _routings(event: FiguresEvent) -> Iterator[Routing]:
    """Those of one task; none of a user's own measure that an older run calls by this name."""
    values = {metric.name: metric.value for metric in event.figures}
    for router in (name.removesuffix("/accuracy") for name in values):
        names = (f"{router}/accuracy", f"{router}/score", "own/score", "latest/score")
        if not values.keys() >= set(names):
            continue
        figures = {
            column: {"value": values[name]}
            | {end: event.numbers.get(f"{name}/{end}") for end in ("low", "high")}
            for column, name in zip(COLUMNS, names, strict=True)
        }
        prefix, numbers = f"{router}/sent/", event.numbers.items()
        sent = {n.removeprefix(prefix): share for n, share in numbers if n.startswith(prefix)}
        n = int(event.numbers.get("examples", 0))
        yield Routing(event.row, event.of, router, n, figures, sent)


def _lines(routings: Sequence[Routing]) -> Iterator[tuple[Text, ...]]:
    """A router's line per task, and their mean."""
    for routing in routings:
        figures = [routing.figures[column] for column in COLUMNS]
        yield row(routing.router, routing.task, routing.n, *map(_figure_text, figures))
    means = []
    for column in COLUMNS:
        values = [routing.figures[column]["value"] for routing in routings]
        means.append(fmean(value for value in values if value is not None))
    total = sum(routing.n for routing in routings)
    yield row(routings[0].router, "mean of the tasks", total, *map(score_or_dash, means))


def _figure_text(figure: Mapping[str, float | None]) -> str:
    low, high = figure["low"], figure["high"]
    has_interval = low is not None and high is not None
    return score_or_dash(figure["value"]) + (f" [{low:.2f}, {high:.2f}]" if has_interval else "")
