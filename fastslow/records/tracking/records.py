"""What a tracker is told of a run, read from its records: as it runs, and whenever it is sent."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastslow.core.files import damage_errors, plain_name, read_json, read_regular
from fastslow.core.prompts import Population, PromptProgram
from fastslow.core.samples import read_sample
from fastslow.core.tracker import Status, TrackedSample
from fastslow.records.cells import CellTable
from fastslow.records.events import (
    NEUTRAL,
    CycleEvent,
    DriftEvent,
    EvaluationEvent,
    Event,
    PopulationEvent,
    ScoreRow,
    StepEvent,
    TextEvent,
)
from fastslow.records.jsonl import read_events
from fastslow.records.new_folder import stage_path
from fastslow.records.row_metrics import row_metrics
from fastslow.records.tail import RecordTail

REPORT_FILES = ("report.md", "report.json", "report.html", "scores.csv")
DRIFT = ("kl_fst", "kl_razor")
"""Divergences that are tracked, under the deployed text."""
MAX_SAMPLES = 6
"""Rollouts of a stage that are tracked. Source: ours, enough to see how answers change."""


@dataclass(frozen=True)
class StageRecords:
    """One stage that was begun."""

    index: int
    task: str
    events: Sequence[StepEvent | CycleEvent]
    folder: Path | None
    """Where its policy was kept; None where it was not complete."""
    prompts: Mapping[str, tuple[Population, PromptProgram]]
    """By task, the prompts as they were after it and the one deployed."""
    status: Status
    """Whether it is complete."""


@dataclass(frozen=True)
class RunRecords:
    """The records of a run folder."""

    run: Path
    tasks: tuple[str, ...]
    """Columns of the matrix."""
    stage_tasks: tuple[str, ...]
    scores: Sequence[ScoreRow]
    events: Sequence[Event]
    status: Status

    def row(
        self, row: int, is_complete: bool = False
    ) -> Iterator[tuple[Mapping[str, float | None], float | None]]:
        """Metrics and time of all that was measured for a row of the score matrix.

        Those of `row_metrics` are among them once the row is complete, which the records alone
        show as soon as something comes after it.
        """
        time = None
        for event in self.events:
            if getattr(event, "row", None) != row:
                continue
            if isinstance(event, EvaluationEvent) and event.part == "matrix":
                time = event.time
                yield self._scores(row), time
            elif isinstance(event, DriftEvent) and (name := _drift_name(event)):
                yield {name: event.value}, time
        if is_complete or self._is_complete(row):
            yield row_metrics(self.tasks, self.stage_tasks, self.scores, self.events, row), time

    def _is_complete(self, row: int) -> bool:
        is_over = self.status == "finished" or (row > 0 and self._folder(row - 1).is_dir())
        later = (e.stage == row for e in self.events if isinstance(e, StepEvent | CycleEvent))
        return is_over or any(later)

    def _scores(self, row: int) -> dict[str, float | None]:
        """The row of the headline matrix, by metric."""
        table = CellTable(self.scores, self.stage_tasks, self.events)
        return {f"score/{task}": table.cell(row, task).score for task in self.tasks}

    def _folder(self, stage: int) -> Path:
        """Where the policy of a stage is kept, once it is complete."""
        return self.run / stage_path(stage, self.stage_tasks[stage])

    def stages(self) -> Iterator[StageRecords]:
        """Every stage that was begun, in order."""
        populations: dict[str, Population] = {}
        live: dict[str, PromptProgram] = {}
        for index, task in enumerate(self.stage_tasks):
            steps: list[StepEvent | CycleEvent] = []
            for event in self.events:
                if getattr(event, "stage", None) != index:
                    continue
                if isinstance(event, StepEvent | CycleEvent):
                    steps.append(event)
                elif isinstance(event, PopulationEvent):
                    populations[event.task] = event.candidates
                elif isinstance(event, TextEvent):
                    live[event.task] = event.program
            folder = self._folder(index)
            steps.sort(key=lambda event: event.time or 0.0)  # as they were told live
            place = folder if folder.is_dir() else None
            is_complete = place is not None or self.status == "finished"  # not all that runs keep
            if steps or place:
                prompts = {name: (populations.get(name, ()), live[name]) for name in live}
                status: Status = "finished" if is_complete else "interrupted"
                yield StageRecords(index, task, steps, place, prompts, status)

    def samples(self, stage: int) -> list[TrackedSample]:
        """A few of the rollouts that a stage kept for people.

        They are the first and the last of each cycle; of many cycles some, the last among them.
        """
        cycles = [e for e in self.events if isinstance(e, CycleEvent) and e.stage == stage]
        samples = []
        for cycle, time in {event.cycle: event.time for event in cycles}.items():
            for path in sorted((self.run / "rollouts").glob(f"{stage:03d}-{cycle:03d}-*.txt")):
                lines = read_regular(path).decode(errors="replace").splitlines()
                in_cycle = [sample for line in lines if (sample := read_sample(line))]
                ends = {0: in_cycle[0], len(in_cycle) - 1: in_cycle[-1]} if in_cycle else {}
                samples += [
                    TrackedSample(f"{path.stem}/{index}", time or 0.0, sample)
                    for index, sample in ends.items()
                ]
        step = max(1, -(-len(samples) // MAX_SAMPLES))
        return samples[::-step][::-1]


class RecordsReader:
    """Reads the records of a run again and again, each time what is new in them."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._scores, self._steps, self._events = (
            RecordTail(run / name) for name in ("scores.jsonl", "metrics.jsonl", "events.jsonl")
        )
        self.version = 0
        """Counts up when a record came or went."""

    def read(self) -> RunRecords:
        """All that a tracker is told of, as it is now.

        Raises:
            CheckpointError: run.json or a record file is missing or damaged.
            OSError: A record file cannot be read.
        """
        with damage_errors(self._run / "run.json", "not the card of a run"):
            card: dict[str, Any] = read_json(self._run / "run.json")
            stages = tuple(map(plain_name, card["stages"]))
            tasks = tuple(map(plain_name, card.get("tasks") or stages))
            state = card["state"]
        status: Status = state if state in ("finished", "failed") else "interrupted"
        changes = [tail.look() for tail in (self._scores, self._steps, self._events)]
        self.version += any(changes)
        scores = [row for row in self._scores.records if isinstance(row, ScoreRow)]
        lines = [*self._steps.records, *self._events.records]
        events = [event for event in lines if not isinstance(event, ScoreRow)]
        return RunRecords(self._run, tasks, stages, scores, events, status)


def read_run_records(run: Path) -> RunRecords:
    """All that a tracker is told of; see `RecordsReader.read`."""
    return RecordsReader(run).read()


def last_time(run: Path) -> float:
    """When the last record that knows its time was made; 0 where none does."""
    paths = [run / "metrics.jsonl", run / "events.jsonl"]
    events = [event for path in paths if path.exists() for event in read_events(path)]
    return max((getattr(event, "time", None) or 0.0 for event in events), default=0.0)


def _drift_name(event: DriftEvent) -> str | None:
    """The metric that a divergence is tracked as, if it is."""
    if event.task == NEUTRAL:
        return event.name if event.name == "neutral_ce_delta" else None
    is_tracked = event.name in DRIFT and event.text == "with_text"
    return f"{event.name}/{event.task}" if is_tracked else None
