"""What the report and what `fastslow gate` conclude from the same estimate of what a task lost."""

from collections.abc import Iterator

from fastslow.results.deploy.gate_rules import judge_losses, side_by_side
from fastslow.results.render.layout import Table
from fastslow.results.report.section import Records, Section
from fastslow.results.report.sections.tasks import Tasks


class Drops(Section):
    """The losses of earlier tasks, judged by the default limits of the gate; no keys of its own."""

    chapter = ""

    def __init__(self, records: Records) -> None:
        summaries = records.section(Tasks).summaries
        changes = {s.task: change for s in summaries if (change := s.change.difference) is not None}
        floors = {summary.task: summary.noise_floor.value for summary in summaries}
        self.losses = judge_losses(("forgetting", "task_forgetting"), changes, floors)

    def tables(self) -> Iterator[Table]:
        yield side_by_side(self.losses)
