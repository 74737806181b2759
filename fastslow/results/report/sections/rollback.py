"""Which stage's policy is in use, where a rollback chose another than the last one's."""

from collections.abc import Iterator, Mapping

from fastslow.records.deployments import deployed_row, deployments
from fastslow.results.render.layout import Table, Text, row
from fastslow.results.report.section import Records, Section
from fastslow.results.report.sections.scores import score_text


class Rollback(Section):
    """The last rollback, or going forward again."""

    chapter = "prompts"

    def __init__(self, records: Records) -> None:
        self.event = next(reversed(deployments(records.path)), None)
        """None where the last stage was never left."""
        deployed = deployed_row(records.path, len(records.card.stages))
        self.cells = dict(zip(records.card.tasks, records.cells[deployed], strict=True))

    def to_json(self) -> Mapping[str, object]:
        # no key at all without a rollback, so that reports of other runs stay as they are
        event = self.event
        if event is None:
            return {}
        return {
            "deployed": {
                "row": event.row,
                "before": event.before,
                "at": event.at,
                "weights": event.weights,
                "texts": event.texts,
                "scores": {task: cell.score for task, cell in self.cells.items()},
            }
        }

    def tables(self) -> Iterator[Table]:
        event = self.event
        if event is None:
            return
        rows = []
        for task, cell in self.cells.items():
            hashes = (side.get(task, "-") for side in (event.weights, event.texts))
            rows.append(row(task, score_text(cell), *(Text(h, is_code=True) for h in hashes)))
        yield Table(
            "Deployed",
            ("task", "score", "weights", "prompt"),
            tuple(rows),
            f"`fastslow rollback` put the policy after stage {event.row} in use at {event.at}, in "
            f"place of the one after stage {event.before}. The other tables are about the run as "
            "it was trained.",
        )
