"""What each task held when the run began, and what is odd about it."""

from collections.abc import Iterator, Mapping

from fastslow.records.events import DataEvent
from fastslow.results.render.layout import Table, row
from fastslow.results.report.section import Records, Section


class Data(Section):
    """The splits of every task; nothing for a run of an older version."""

    chapter = "scores"

    def __init__(self, records: Records) -> None:
        self.summaries = [event.data for event in records.events_of(DataEvent)]

    def to_json(self) -> Mapping[str, object]:
        return {"data": self.summaries} if self.summaries else {}

    def tables(self) -> Iterator[Table]:
        rows = []
        for summary in self.summaries:
            for name, split in summary.splits.items():
                answer, share = split.majority or ("-", None)
                most = "-" if share is None else f"{share:.2f}"
                counts = (split.examples, split.answers, answer, most, split.longest)
                rows.append(row(summary.task, name, *counts))
        header = ("task", "split", "examples", "answers", "most frequent", "share", "longest")
        yield Table(
            "Data",
            header,
            tuple(rows),
            "Answers: different gold answers. Share: of the most frequent one, the score of always "
            "giving it. Longest: characters of the longest question.",
        )
        notes = [row(summary.task, note) for summary in self.summaries for note in summary.notes]
        yield Table("Notes on data", ("task", "what a reader must know"), tuple(notes))
