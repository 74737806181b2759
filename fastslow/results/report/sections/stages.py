"""What each stage cost, and the metrics as they stood after it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from fastslow.core.types import Metric
from fastslow.measure.scores.all_metrics import final_metrics
from fastslow.records.events import CycleEvent
from fastslow.results.render.layout import Table, Text, score_or_dash
from fastslow.results.report.section import Records, Section, stage_label
from fastslow.results.report.sections.cost import channel_events, rollouts_of, seconds_of

METRICS = ("average_accuracy", "bwt_gem", "forgetting_chaudhry")
"""Metrics of each stage in the table; report.json has all."""


@dataclass(frozen=True, slots=True)
class StageSummary:
    """One stage."""

    task: str
    cycles: int
    """Cycles done."""
    rollouts: Mapping[str, int]
    """By channel."""
    seconds: Mapping[str, float]
    """By channel."""
    metrics: Mapping[str, Metric]


@dataclass(frozen=True, slots=True)
class Stages(Section):
    """Every stage, in order."""

    stages: tuple[StageSummary, ...]

    chapter = "curves"

    @classmethod
    def compute(cls, records: Records) -> Self:
        """Sum up the events of each stage."""
        return cls(tuple(_summary(records, index) for index in range(len(records.card.stages))))

    def to_json(self) -> Mapping[str, object]:
        """One object per stage."""
        return {"stages": self.stages}

    def tables(self) -> Sequence[Table]:
        """One row per stage."""
        header = ("stage", "cycles", "fast rollouts", "slow rollouts", "minutes")
        return [
            Table(
                "Stages",
                (*header, "average accuracy", "bwt_gem", "forgetting chaudhry"),
                tuple(_row(index, stage) for index, stage in enumerate(self.stages)),
                "Metrics as they stood after the stage; - is undefined.",
            )
        ]


def _summary(records: Records, index: int) -> StageSummary:
    events = [event for event in channel_events(records) if event.stage == index]
    matrix = records.matrix.upto(index + 1)
    return StageSummary(
        task=records.card.stages[index],
        cycles=len({event.cycle for event in events if isinstance(event, CycleEvent)}),
        rollouts=rollouts_of(events),
        seconds=seconds_of(events),
        metrics=final_metrics(matrix, noise_floor=records.noise_floor),
    )


def _row(index: int, stage: StageSummary) -> tuple[Text, ...]:
    return (
        Text(stage_label(index, stage.task)),
        Text(str(stage.cycles)),
        Text(str(stage.rollouts["fast"])),
        Text(str(stage.rollouts["slow"])),
        Text(f"{sum(stage.seconds.values()) / 60:.1f}"),
        *(Text(score_or_dash(stage.metrics[name].value)) for name in METRICS),
    )
