"""What each task gives to the means of forgetting."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from fastslow.results.render.layout import Table, Text, metric_text
from fastslow.results.report.section import Records, Section
from fastslow.results.report.sections.tasks import Tasks, TaskSummary

BY_TASK = ("forgetting_chaudhry", "forgetting_relative", "min_acc", "retention_gain")
"""Terms of each task in the table; report.json has all."""


@dataclass(frozen=True, slots=True)
class Forgetting(Section):
    """The tasks that a stage trained on; their JSON is that of `Tasks`."""

    summaries: tuple[TaskSummary, ...]

    chapter = "forgetting"

    @classmethod
    def compute(cls, records: Records) -> Self:
        """Take the trained tasks."""
        return cls(tuple(s for s in records.section(Tasks).summaries if s.terms))

    def tables(self) -> Sequence[Table]:
        """One row per task."""
        return [
            Table(
                "Forgetting by task",
                ("task", *BY_TASK, "detectable drop", "noise floor"),
                tuple(_row(summary) for summary in self.summaries),
                "Each task's part of the mean of that name. Detectable drop: the smallest one that "
                "would be found with 80 % power. Noise floor: max - min over repeated evaluations "
                "of the base.",
            )
        ]


def _row(summary: TaskSummary) -> tuple[Text, ...]:
    change = summary.change.difference
    return (
        Text(summary.task),
        *(metric_text(summary.terms[name]) for name in BY_TASK),
        Text("-" if change is None else f"{change.smallest_detectable:.2f}"),
        metric_text(summary.noise_floor),
    )
