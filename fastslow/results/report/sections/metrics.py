"""The metrics of the whole run, with their formulas."""

from collections.abc import Iterator, Mapping, Sequence

from fastslow.core.types import Metric
from fastslow.measure.scores.all_metrics import final_metrics
from fastslow.measure.scores.intransigence import why_bwt_says_nothing
from fastslow.measure.stats.intervals import Interval, mean_difference
from fastslow.results.render.layout import Table, Text, metric_text
from fastslow.results.report.section import Records, Section
from fastslow.results.report.sections.curves import Curves, learning_curve_area
from fastslow.results.report.sections.tasks import Tasks, TaskSummary

HEADLINE = (
    "average_accuracy",
    "learning_accuracy",
    "bwt_gem",
    "fwt_gem",
    "forgetting_chaudhry",
    "intransigence",
    "retention_gain",
)
"""Metrics shown in the terminal; report.md and report.json have all of them."""


class Metrics(Section):
    """Every metric of the score matrix and of the learning curves."""

    chapter = "formulas"

    def __init__(self, records: Records) -> None:
        matrix, floor = records.matrix, records.noise_floor
        area = learning_curve_area(records.section(Curves).curves, records.steps_per_cycle)
        self.metrics = {**final_metrics(matrix, noise_floor=floor), "lca": area}
        summaries = records.section(Tasks).summaries
        self.intervals = _intervals(self.metrics, summaries, matrix.num_stages)
        """95 % intervals of metrics that have one, tasks taken as fixed."""
        self.bwt_warning = why_bwt_says_nothing(matrix, floor or 0.0)
        """Why backward transfer must not be read as retention; None if it may be."""

    def to_json(self) -> Mapping[str, object]:
        return {
            "metrics": self.metrics,
            "intervals": self.intervals,
            "bwt_warning": self.bwt_warning,
        }

    def tables(self) -> Iterator[Table]:
        yield self._table(tuple(self.metrics))

    def terminal_tables(self) -> Iterator[Table]:
        yield self._table(HEADLINE)

    def _table(self, names: Sequence[str]) -> Table:
        rows = []
        for name in names:
            metric = self.metrics[name]
            value = metric_text(metric, 3, self.intervals.get(name))
            cells = (value, Text(metric.formula, is_code=True))
            if metric.value is None:
                cells = (Text("undefined", "dim"), value)
            rows.append((Text(name, is_code=True), *cells))
        notes = [f"{self.bwt_warning}."] if self.bwt_warning else []
        if num_alternates := len(self.metrics) - len(names):
            notes.append(f"{num_alternates} alternates are in report.md and report.json.")
        header = ("metric", "value", "formula, or why there is no value")
        return Table("Metrics", header, tuple(rows), " ".join(notes))


def _intervals(
    metrics: Mapping[str, Metric], summaries: Sequence[TaskSummary], num_stages: int
) -> dict[str, Interval]:
    """Of `bwt_gem`: the one default metric that is a plain mean of paired differences."""
    changes = [s.change.difference for s in summaries if s.change.difference is not None]
    earlier = [s for s in summaries if s.learned_row not in (None, num_stages)]
    complete = metrics["bwt_gem"].value is not None and len(changes) == len(earlier)
    interval = mean_difference(changes) if complete else None
    return {} if interval is None else {"bwt_gem": interval}
