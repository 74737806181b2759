"""From raw score rows to the cells of the score matrix and to paired comparisons of its rows.

A cell is the mean over examples of the mean over samples, under the prompt that the headline matrix
uses for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, TypeAlias

from fastslow.core.errors import CheckpointError
from fastslow.core.types import Metric, PromptPolicy
from fastslow.measure.scores.matrix import ScoreMatrix, headline_policy
from fastslow.measure.stats.intervals import (
    Interval,
    PairedDifference,
    cluster_labels,
    paired_difference,
    score_interval,
)
from fastslow.measure.stats.significance import noise_floor
from fastslow.records.events import Event, ScoreRow, TextEvent

ExampleScores: TypeAlias = Mapping[str, float]
"""Example id to its mean score over samples."""
_Samples: TypeAlias = dict[int, dict[str, float]]
"""Of one cell: sample, from 0, to its score of each example."""
CellKey: TypeAlias = tuple[int, str, PromptPolicy]
"""Row of the matrix, task, role of the prompt."""
Phase: TypeAlias = Literal["unseen", "learned", "seen", "held_out"]
"""Whether a cell's task is yet to be trained on, just was, was earlier, or never is."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One score of the matrix."""

    score: float | None
    """In [0, 1]; None when not measured."""
    interval: Interval | None
    """95 % interval; None where none can be given."""
    n: int
    """Examples behind it."""
    prompt_policy: PromptPolicy
    """The prompt it was scored with."""
    phase: Phase


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired difference between two rows of one task, or why there is none."""

    difference: PairedDifference | None
    reason: str | None


class CellTable:
    """The example scores of every cell of the headline matrix, from the score rows of one run.

    Rows within a stage are skipped. Until an event chooses a task's prompt, the seed prompt is
    deployed. `CheckpointError` if a sample was recorded twice.
    """

    def __init__(
        self, rows: Iterable[ScoreRow], stages: Sequence[str], events: Sequence[Event]
    ) -> None:
        self.stages = tuple(stages)
        chosen = [event for event in reversed(events) if isinstance(event, TextEvent)]
        self._first_text = {event.task: event.stage + 1 for event in chosen}
        """The row from which on a task is deployed with a prompt of its own."""
        cells: dict[CellKey, dict[str, _Samples]] = {}
        self._texts: dict[CellKey, str] = {}
        """Hash of the prompt of each cell; of a task visited twice, of the later one."""
        self.clusters: dict[str, dict[str, str]] = {}
        """By task, the cluster of every example that names one."""
        for row in rows:
            if row.cluster is not None:
                by_example = self.clusters.setdefault(row.sample.task, {})
                by_example[row.sample.example] = row.cluster
            if row.cycle is None:
                sample = row.sample
                key = (row.row, sample.task, sample.prompt_policy)
                self._texts[key] = sample.text_hash
                samples = cells.setdefault(key, {}).setdefault(sample.text_hash, {})
                scores = samples.setdefault(sample.sample, {})
                if sample.example in scores and not row.reused:
                    raise CheckpointError(
                        f"scores.jsonl: sample {sample.sample} of example {sample.example!r}, task "
                        f"{sample.task!r}, row {row.row}: recorded twice, expected once. The mean "
                        "would be wrong; restore the file from a copy."
                    )
                scores[sample.example] = sample.score
        deployed = {key: by_text[self._texts[key]] for key, by_text in cells.items()}
        self._base = {key[1]: deployed[key] for key in deployed if key == (0, key[1], "seed")}
        self._cells = {key: _example_means(samples) for key, samples in deployed.items()}

    def scores(self, row: int, task: str, policy: PromptPolicy) -> ExampleScores:
        """Score of each example of one cell under one prompt; nothing where not measured."""
        return self._cells.get((row, task, policy), {})

    def _policy(self, row: int, task: str) -> PromptPolicy:
        """The prompt of the headline matrix; `seed` stands for `live` where that is deployed."""
        policy = headline_policy(self.stages, row, task)
        has_text = task in self._first_text and row >= self._first_text[task]
        if policy == "live" and not has_text and (row, task, policy) not in self._cells:
            return "seed"
        return policy

    def deployed(self, row: int, task: str) -> ExampleScores:
        """Score of each example of one cell of the headline matrix."""
        return self._cells.get((row, task, self._policy(row, task)), {})

    def matrix(self, tasks: Sequence[str]) -> ScoreMatrix:
        """The headline matrix of these tasks; `EvaluationError` if scores cannot form one."""
        rows = range(len(self.stages) + 1)
        scores = tuple(tuple(self.score(row, task) for task in tasks) for row in rows)
        return ScoreMatrix(tuple(tasks), self.stages, scores)

    def labels(self, task: str, examples: Iterable[str]) -> list[tuple[bool, str]]:
        """The cluster of each of these examples of a task."""
        return cluster_labels(examples, self.clusters.get(task, {}))

    def text(self, row: int, task: str) -> str | None:
        """Hash of the prompt of that cell; None where not measured."""
        return self._texts.get((row, task, self._policy(row, task)))

    def base_floor(self, task: str) -> Metric:
        """How far repeated evaluations of the base lie apart; see `noise_floor`."""
        samples = self._base.get(task, {})
        examples = set[str]().union(*samples.values())
        repeats = [scores for _, scores in sorted(samples.items()) if len(scores) == len(examples)]
        return noise_floor([fmean(scores.values()) for scores in repeats])

    def learned_row(self, task: str) -> int | None:
        """The row after the task's last stage; None when no stage visits it."""
        visits = (row for row, stage in enumerate(self.stages, start=1) if stage == task)
        return max(visits, default=None)

    def score(self, row: int, task: str) -> float | None:
        """The score of `task` in `row`; None when not measured."""
        by_example = self.deployed(row, task)
        return fmean(by_example.values()) if by_example else None

    def cell(self, row: int, task: str) -> Cell:
        """The cell of `task` in `row`, measured or not."""
        by_example = self.deployed(row, task)
        scores = list(by_example.values())
        return Cell(
            score=fmean(scores) if scores else None,
            interval=score_interval(scores, self.labels(task, by_example)),
            n=len(scores),
            prompt_policy=self._policy(row, task),
            phase=self._phase(row, task),
        )

    def _phase(self, row: int, task: str) -> Phase:
        learned = self.learned_row(task)
        if learned is None:
            return "held_out"
        if row > 0 and self.stages[row - 1] == task:
            return "learned"
        return "seen" if task in self.stages[:row] else "unseen"

    def compare(self, task: str, before: int | None, after: int | None) -> Comparison:
        """Score of `task` in row `after` minus row `before`, example by example."""
        if before is None or after is None:
            return Comparison(None, "held out: no stage trains on it")
        if before == after:
            return Comparison(None, "learned in the last stage: nothing came after")
        for row in (before, after):
            if not self.deployed(row, task):
                return Comparison(None, f"not measured: row {row}")
        first, second = self.deployed(before, task), self.deployed(after, task)
        if first.keys() != second.keys():
            return Comparison(None, f"rows {before} and {after} were scored on other examples")
        differences = paired_difference(
            list(first.values()), [second[key] for key in first], self.labels(task, first)
        )
        return Comparison(differences, None)


def _example_means(samples: _Samples) -> ExampleScores:
    """The mean over samples of each example, in the order of their ids."""
    examples = sorted(set[str]().union(*samples.values()))
    return {
        example: fmean([scores[example] for scores in samples.values() if example in scores])
        for example in examples
    }
