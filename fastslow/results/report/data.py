"""A report as plain data.

Owns what a report contains. `build.py` computes it, `markdown.py` and `terminal.py` show it,
`write.py` writes its JSON form, which docs/report-schema.md describes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fastslow.core.prompts import PromptProgram
from fastslow.core.types import Json, Metric
from fastslow.measure.stats.intervals import Interval
from fastslow.records.events import DeployEvent, DriftEvent, FiguresEvent, ShrinkEvent
from fastslow.results.report.cells import Cell, Comparison
from fastslow.results.report.sections.channel_split import TaskSplit
from fastslow.results.report.sections.curves import StageCurve
from fastslow.results.report.sections.plasticity import TaskProbe
from fastslow.results.report.sections.reflection import ReflectionAccount

SCHEMA_VERSION = 1
"""Raised when a key of report.json changes its meaning or goes."""


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """What happened to one task."""

    task: str
    version: str | None
    """`definition@version`; None when it was never scored."""
    learned_row: int | None
    """The row after its stage; None for a held-out task."""
    base: Cell
    """Row 0."""
    learned: Cell | None
    """The row after its stage; None for a held-out task."""
    final: Cell
    """The last row."""
    gain: Comparison
    """Learned minus base."""
    change: Comparison
    """Final minus learned; negative = forgot."""
    net: Comparison
    """Final minus base."""
    terms: Mapping[str, Metric]
    """What the task gives to each mean over tasks; nothing for a held-out one."""
    noise_floor: Metric
    """How far repeated evaluations of the base lie apart."""


@dataclass(frozen=True, slots=True)
class StageSummary:
    """What one stage cost, and the metrics as they stood after it."""

    task: str
    cycles: int
    """Cycles done."""
    rollouts: Mapping[str, int]
    """By channel."""
    seconds: Mapping[str, float]
    """By channel."""
    metrics: Mapping[str, Metric]


@dataclass(frozen=True, slots=True)
class CyclePoint:
    """What the channels saw in one cycle, on training problems."""

    stage: int
    """Index of the stage, from 0."""
    cycle: int
    """Index of the cycle within the stage, from 0."""
    best_text: float | None
    """Mean score of the best text on the anchor set (`fast/best_score`)."""
    reward: float | None
    """Mean reward of the rollouts (`slow/reward`)."""


@dataclass(frozen=True, slots=True)
class EvaluationCost:
    """What one part of the evaluation cost over the run."""

    rollouts: int
    """Completions sampled, from the tuned policy and from the base."""
    seconds: float
    reused: int
    """Score rows that repeat earlier ones, for which nothing was sampled."""


@dataclass(frozen=True, slots=True)
class Note:
    """What a channel said of one of its phases."""

    stage: int
    """Index of the stage, from 0."""
    cycle: int
    """Index of the cycle within the stage, from 0."""
    channel: str
    text: str
    """May quote untrusted text."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The text a task is deployed with at the end of the run."""

    task: str
    stage: int
    """Index of the stage that chose it, from 0."""
    program: PromptProgram
    validation_mean: float | None
    """Mean validation score in [0, 1] by which it was chosen."""
    validation_n: int


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a report says."""

    run: str
    """Name of the run folder when it was made."""
    state: str
    """`running`, `finished`, `failed` or `interrupted`."""
    command: tuple[str, ...]
    config_hash: str
    environment: Mapping[str, Json]
    tasks: tuple[str, ...]
    """Columns of the matrix: tasks of the stages in order, then held-out ones."""
    stage_tasks: tuple[str, ...]
    """The task each stage trains on."""
    cells: tuple[tuple[Cell, ...], ...]
    """T + 1 rows; row 0 is the base."""
    metrics: Mapping[str, Metric]
    intervals: Mapping[str, Interval]
    """95 % intervals of metrics that have one, tasks taken as fixed."""
    summaries: tuple[TaskSummary, ...]
    stages: tuple[StageSummary, ...]
    drift: tuple[DriftEvent, ...]
    """The last measurement of each (row, task, name, text)."""
    kl_fit: Mapping[str, Metric]
    """Parabola of forgetting on KL over the later stages."""
    shrinks: tuple[ShrinkEvent, ...]
    """What scaling the adapter after a stage gave up and saved, the last of each stage."""
    notes: tuple[Note, ...]
    """What channels said a reader must know, in order."""
    prompts: tuple[Prompt, ...]
    reflection: ReflectionAccount | None
    """What the reflection LM was asked and cost; None without one."""
    rollouts: Mapping[str, int]
    """By `fast`, `slow` and `evaluation`."""
    seconds_by: Mapping[str, float]
    """By `fast`, `slow` and `evaluation`."""
    seconds: float
    """Wall time of the whole run, over all resumes."""
    saving_seconds: float | None
    """Part of it that went into resume points; None where it was not measured."""
    bwt_warning: str | None
    """Why backward transfer must not be read as retention; None if it may be."""
    splits: tuple[TaskSplit, ...]
    """What weights and text brought and lost, by trained task."""
    curves: tuple[StageCurve, ...]
    """How each stage's task was learned, cycle by cycle."""
    cycles: tuple[CyclePoint, ...]
    """What the channels saw, in order."""
    measured: tuple[FiguresEvent, ...]
    """Geometry, overlap and proxies, the last of each."""
    probes: tuple[TaskProbe, ...]
    """Fresh runs on held-out tasks, from the weights of a stage and from the base."""
    evaluations: Mapping[str, EvaluationCost]
    """What each part of the evaluation cost, by its name."""
    deployed: DeployEvent | None
    """The last rollback, or going forward again; None where the last stage was never left."""

    @property
    def evaluation_frac(self) -> float | None:
        """Share of the run's wall time that was spent on evaluation; None before any of it."""
        return self.seconds_by["evaluation"] / self.seconds if self.seconds else None

    @property
    def rows_measured(self) -> int:
        """Rows of the matrix in which every task has a score, counted from the base on."""
        complete = [all(cell.score is not None for cell in row) for row in self.cells]
        return [*complete, False].index(False)
