"""What a tracker is told of a run, read from its records: the same as the loop tells it live."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from fastslow.core.files import read_json
from fastslow.core.prompts import Population, PromptProgram
from fastslow.core.tracker import Status
from fastslow.measure.scores.matrix import headline_policy
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
from fastslow.records.jsonl import read_events, read_scores

REPORT_FILES = ("report.md", "report.json", "report.html", "scores.csv")
DRIFT = ("kl_fst", "kl_razor")
"""Divergences that are tracked, under the deployed text."""


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

    @property
    def status(self) -> Status:
        """Whether it is complete."""
        return "interrupted" if self.folder is None else "finished"


@dataclass(frozen=True)
class RunRecords:
    """The records of a run folder."""

    run: Path
    stage_tasks: tuple[str, ...]
    scores: Sequence[ScoreRow]
    events: Sequence[Event]
    status: Status

    def row(self, row: int) -> Iterator[tuple[Mapping[str, float | None], float | None]]:
        """Metrics and time of all that was measured for a row of the score matrix."""
        time = None
        for event in self.events:
            if getattr(event, "row", None) != row:
                continue
            if isinstance(event, EvaluationEvent) and event.part == "matrix":
                time = event.time
                yield self._scores(row), time
            elif isinstance(event, DriftEvent) and (name := _drift_name(event)):
                yield {name: event.value}, time

    def _scores(self, row: int) -> dict[str, float | None]:
        """The row of the headline matrix, by metric."""
        scores: defaultdict[str, list[float]] = defaultdict(list)
        for record in self.scores:
            sample = record.sample
            role = headline_policy(self.stage_tasks, row, sample.task)
            is_cell = (record.row, record.cycle, sample.sample) == (row, None, 0)
            if is_cell and sample.prompt_policy == role:
                scores[f"score/{sample.task}"].append(sample.score)
        return {name: fmean(cell) for name, cell in scores.items()}

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
            folder = self.run / "stages" / f"{index:03d}-{task}"
            steps.sort(key=lambda event: event.time or 0.0)  # as they were told live
            if steps or folder.is_dir():
                prompts = {name: (populations[name], live[name]) for name in live}
                yield StageRecords(index, task, steps, folder if folder.is_dir() else None, prompts)


def read_run_records(run: Path) -> RunRecords:
    """Read all that a tracker is told of.

    Raises:
        CheckpointError: A record file is missing or damaged.
        OSError, ValueError: There is no run.json, or it is damaged.
    """
    card: dict[str, Any] = read_json(run / "run.json")
    status: Status = card["state"] if card["state"] in ("finished", "failed") else "interrupted"
    events = [*read_events(run / "metrics.jsonl"), *read_events(run / "events.jsonl")]
    return RunRecords(run, tuple(card["stages"]), read_scores(run / "scores.jsonl"), events, status)


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
