"""Whether the policy still follows its prompts, in each row and against the base."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from fastslow.measure.stats.intervals import PairedDifference, cluster_labels, paired_difference
from fastslow.records.events import FiguresEvent
from fastslow.results.render.layout import Table, Text, difference_text, row
from fastslow.results.report.section import Records, Section
from fastslow.results.report.sections.change import cells
from fastslow.results.report.sections.weights import Measured

NAMES = ("adherence_flipped", "adherence_prior", "adherence_nonsense")
"""Figures that are compared with those of the base, input by input."""


@dataclass(frozen=True, slots=True)
class AdherenceChange:
    """A later row of a task against row 0."""

    row: int
    task: str
    changes: Mapping[str, PairedDifference]
    """Row - base by figure, paired by input; negative = the prompt is followed less."""


class Adherence(Section):
    """Influence of prompts, and what completions follow; changes since the base."""

    chapter = "forgetting"

    def __init__(self, records: Records) -> None:
        self.events = records.section(Measured).of_kind("adherence")
        clusters = {
            (score.sample.task, score.sample.example): score.cluster
            for score in records.scores
            if score.cluster is not None
        }
        base = {event.of: event for event in self.events if event.row == 0}
        self.changes = [
            AdherenceChange(event.row, event.of, _changes(base[event.of], event, clusters))
            for event in self.events
            if event.row > 0 and event.of in base
        ]

    def to_json(self) -> Mapping[str, object]:
        return {"adherence": self.changes} if self.events else {}

    def tables(self) -> Iterator[Table]:
        by_place = {(change.row, change.task): change.changes for change in self.changes}
        rows = []
        for event in self.events:
            changes = by_place.get((event.row, event.of), {})
            influence = list(cells(event, ("text_influence", "text_influence_base")))
            figures = zip(cells(event, NAMES), NAMES, strict=True)
            pairs = [(text, _change_text(changes, name)) for text, name in figures]
            rows.append(row(event.row, event.of, *influence, *(x for pair in pairs for x in pair)))
        yield Table(
            "Whether prompts are still followed",
            (
                *("row", "task", "influence", "of the base", "follows exchanged answers"),
                *("change", "keeps to the true ones", "change", "follows nonsense", "change"),
            ),
            tuple(rows),
            "influence: KL of the first token's distribution under the deployed prompt to that "
            "under the seed prompt, nats, of the policy and of its base. Exchanged: demonstrations "
            "show every answer as the next one in sorted order; share of completions that follow "
            "them, and share that keeps to the true answers; nonsense: demonstrations show words "
            "that mean nothing. The prompts are the same in every row, so the change since row 0, "
            "paired by input, is that of the weights: falling, the weights took over. Small "
            "models follow such prompts badly: row 0 says how far." + self._two_answers(),
        )

    def _two_answers(self) -> str:
        tasks = sorted({event.of for event in self.events if event.numbers.get("answers") == 2})
        if not tasks:
            return ""
        return (
            f" {', '.join(tasks)}: with two answers, keeping to the true one and answering wrongly "
            "are the same under exchanged answers."
        )


def _changes(
    base: FiguresEvent, event: FiguresEvent, clusters: Mapping[tuple[str, str], str]
) -> dict[str, PairedDifference]:
    """Of every figure that both rows have for some inputs."""
    changes = {}
    for name in NAMES:
        before, after = _by_input(base, name), _by_input(event, name)
        if inputs := [example for example in before if example in after]:
            of_task = {e: c for (task, e), c in clusters.items() if task == event.of}
            changes[name] = paired_difference(
                [before[example] for example in inputs],
                [after[example] for example in inputs],
                cluster_labels(inputs, of_task),
            )
    return changes


def _by_input(event: FiguresEvent, name: str) -> dict[str, float]:
    """The score of each input, by its id."""
    prefix = f"{name}/of/"
    return {
        key.removeprefix(prefix): score
        for key, score in event.numbers.items()
        if key.startswith(prefix)
    }


def _change_text(changes: Mapping[str, PairedDifference], name: str) -> Text:
    return difference_text(changes[name]) if name in changes else Text("-", "dim")
