"""How the answers to each task are distributed, and where they have become one answer."""

import re
from collections.abc import Iterator, Mapping

from fastslow.core.text import shorten
from fastslow.measure.scores.guessing import AnswerSpread, answer_spread, collapse_sentence
from fastslow.results.render.layout import Table, Text, row
from fastslow.results.report.section import Records, Section, stage_label
from fastslow.results.report.sections.scores import ANSWER

WITHHELD = re.compile(r"\(withheld, \d+ characters\)")
"""Stands for a completion in a run that was kept without its texts."""


class Answers(Section):
    """The distribution of the answers behind each cell of the headline matrix."""

    chapter = "scores"

    def __init__(self, records: Records) -> None:
        self.tasks, self.stages = records.card.tasks, records.card.stages
        table, cells = records.table, dict[tuple[int, str], dict[str, tuple[str, float]]]()
        for line in records.scores:
            sample, place = line.sample, (line.row, line.sample.task)
            scored = (line.cycle, sample.sample, sample.text_hash)
            if scored == (None, 0, table.text(*place)) and not WITHHELD.fullmatch(
                sample.completion
            ):
                cells.setdefault(place, {})[sample.example] = sample.completion, sample.score
        self.spreads = {place: answer_spread(cell.values()) for place, cell in cells.items()}
        """By row and task; nothing where not measured or withheld."""
        gold = {task: guess.num_gold for task, guess in records.guesses.items()}
        self.collapses = {
            place
            for place, spread in self.spreads.items()
            if spread.is_collapsed(gold.get(place[1]))
        }
        """Row and task of the cells whose answers have become one."""
        self.alarms = tuple(self._alarms(records))
        """A sentence for every task that has collapsed after a stage from its own on."""

    def _alarms(self, records: Records) -> Iterator[str]:
        for task in dict.fromkeys(self.stages):
            first = self.stages.index(task) + 1
            rows = [i for i, name in self.collapses if name == task and i >= first]
            if rows:
                spread, guess = self.spreads[max(rows), task], records.guesses.get(task)
                yield collapse_sentence(task, spread, max(rows), guess)

    def to_json(self) -> Mapping[str, object]:
        answers = [
            {
                "row": i,
                "task": task,
                "n": spread.n,
                "answer": spread.answer,
                "share": spread.share,
                "distinct": spread.distinct,
                "entropy": spread.entropy,
                "collapsed": (i, task) in self.collapses,
            }
            for (i, task), spread in sorted(self.spreads.items())
        ]
        return {"answers": answers}

    def tables(self) -> Iterator[Table]:
        labels = ["0 base", *(stage_label(i, task) for i, task in enumerate(self.stages))]
        rows = [
            row(name, *(self._text(i, task) for task in self.tasks))
            for i, name in enumerate(labels)
        ]
        yield Table(
            "Answers",
            ("after stage", *self.tasks),
            tuple(rows) if self.spreads else (),
            "The commonest answer and how often it was given, then the number of distinct answers "
            "and the entropy of their distribution in bits. ! nearly all answers are one, and "
            "often wrong. White space, case and a last full stop do not count.",
        )

    def _text(self, i: int, task: str) -> Text:
        spread = self.spreads.get((i, task))
        if spread is None:
            return Text("-", "dim")
        is_collapsed = (i, task) in self.collapses
        return Text(_words(spread) + "!" * is_collapsed, "strong" if is_collapsed else "plain")


def _words(spread: AnswerSpread) -> str:
    share = f"'{shorten(spread.answer, ANSWER)}' {spread.count}/{spread.n}"
    return f"{share}; {spread.distinct}; {spread.entropy:.1f}"
