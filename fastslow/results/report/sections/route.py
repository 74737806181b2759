"""A route: what sending the hardest questions to a stronger arm by a signal scores, and costs."""

from collections.abc import Iterator

from fastslow.records.events import FiguresEvent
from fastslow.results.render.layout import Table, Text, row, score_or_dash
from fastslow.results.report.section import Records, Section
from fastslow.results.report.sections.weights import Measured

WAYS = ("cheap", "strong", "chance", "routed")


class Route(Section):
    """The route on every task visited, after the last stage; its JSON is that of `Measured`."""

    chapter = "scores"

    def __init__(self, records: Records) -> None:
        events = records.section(Measured).of_kind("route")
        self.row = max((event.row for event in events), default=0)
        self.by_task = {event.of: event for event in events if event.row == self.row}

    def matrix_row(self, tasks: tuple[str, ...]) -> tuple[tuple[Text, ...], ...]:
        """The routed score of each task, as a row for the table of the matrix; none without one."""
        cells = (
            _score(self.by_task[t], "routed/score") if t in self.by_task else "-" for t in tasks
        )
        return (row(f"{self.row} routed", *cells),) if self.by_task else ()

    def tables(self) -> Iterator[Table]:
        formulas: dict[str, str] = {}
        for event in self.by_task.values():
            formulas |= {m.name.partition("/")[0]: m.formula for m in event.figures}
        metrics = (
            (event.of, metric) for event in self.by_task.values() for metric in event.figures
        )
        reasons = {task: m.reason for task, m in metrics if m.name == "routed/score" and m.reason}
        yield Table(
            f"Route after stage {self.row}",
            ("task", "n", *WAYS, "routing gain", *(f"{way} tokens" for way in WAYS)),
            tuple(
                row(
                    task,
                    f"{event.numbers.get('examples', 0):.0f}",
                    *(_score(event, f"{way}/score") for way in WAYS),
                    _score(event, "routing_gain"),
                    *(_tokens(event, way) for way in WAYS),
                )
                for task, event in self.by_task.items()
            ),
            "".join(f"{way}: {formulas[way]}. " for way in WAYS if way in formulas)
            + "".join(f"No route on {task}: {reason}. " for task, reason in reasons.items())
            + "Routing gain, of the whole curve: 1 is the best order, 0 chance. Tokens: prompt "
            "tokens per question. The signal is read under the cheap prompt, so a question that is "
            "sent on is paid for under both: a route pays only where routed tokens are fewer than "
            "strong ones, and tells only where routed is above chance. 95 % intervals.",
        )


def _value(event: FiguresEvent, name: str) -> float | None:
    return {metric.name: metric.value for metric in event.figures}.get(name)


def _score(event: FiguresEvent, name: str) -> str:
    """A figure with its interval."""
    low, high = (event.numbers.get(f"{name}/{end}") for end in ("low", "high"))
    limits = f" [{low:.2f}, {high:.2f}]" if low is not None and high is not None else ""
    return score_or_dash(_value(event, name)) + limits


def _tokens(event: FiguresEvent, way: str) -> str:
    tokens = _value(event, f"{way}/prompt_tokens")
    return "-" if tokens is None else f"{tokens:.1f}"
