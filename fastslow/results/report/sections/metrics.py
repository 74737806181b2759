"""The metrics of the whole run, with their formulas."""

from collections.abc import Iterator, Mapping

from fastslow.measure.scores.all_metrics import final_metrics
from fastslow.measure.scores.intransigence import why_bwt_says_nothing
from fastslow.measure.stats.intervals import Interval, mean_difference
from fastslow.results.render.layout import Table, Text, metric_text
from fastslow.results.report.section import Records, Section
from fastslow.results.report.sections.curves import Curves, learning_curve_area
from fastslow.results.report.sections.tasks import Tasks

HEADLINE = (
    "average_accuracy",
    "learning_accuracy",
    "bwt_gem",
    "fwt_gem",
    "forgetting_chaudhry",
    "intransigence",
    "retention_gain",
)
"""Metrics of a model card; report.md and report.json have all of them."""


class Metrics(Section):
    """Every metric of the score matrix and of the learning curves."""

    chapter = "formulas"

    def __init__(self, records: Records) -> None:
        matrix, floor = records.matrix, records.noise_floor
        area = learning_curve_area(records.section(Curves).curves, records.steps_per_cycle)
        self.metrics = {**final_metrics(matrix, noise_floor=floor), "lca": area}
        self.intervals: dict[str, Interval] = {}
        """95 % interval of `bwt_gem`, the one default metric that is a plain mean of paired
        differences, where there is one; tasks taken as fixed."""
        trained = [s for s in records.section(Tasks).summaries if s.learned_row is not None]
        changes = [s.change.difference for s in trained if s.learned_row != matrix.num_stages]
        paired = [change for change in changes if change is not None]
        is_whole = self.metrics["bwt_gem"].value is not None and len(paired) == len(changes)
        if is_whole and (interval := mean_difference(paired)):
            self.intervals["bwt_gem"] = interval
        self.bwt_warning = why_bwt_says_nothing(matrix, floor or 0.0)
        """Why backward transfer must not be read as retention; None if it may be."""

    def to_json(self) -> Mapping[str, object]:
        return {
            "metrics": self.metrics,
            "intervals": self.intervals,
            "bwt_warning": self.bwt_warning,
        }

    def tables(self) -> Iterator[Table]:
        rows = []
        for name, metric in self.metrics.items():
            value = metric_text(metric, 3, self.intervals.get(name))
            cells = (value, Text(metric.formula, is_code=True))
            if metric.value is None:
                cells = (Text("undefined", "dim"), value)
            rows.append((Text(name, is_code=True), *cells))
        header = ("metric", "value", "formula, or why there is no value")
        yield Table(
            "Metrics", header, tuple(rows), f"{self.bwt_warning}." if self.bwt_warning else ""
        )
