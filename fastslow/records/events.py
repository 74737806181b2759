"""The measurements of a run: one class for every kind of line in its record files."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, Union

from fastslow.core.prompts import Candidate, PromptProgram
from fastslow.core.types import Metric, SampleScore
from fastslow.measure.scores.guessing import Guess
from fastslow.task.summary import DataSummary

NEUTRAL = "neutral prose"
"""Stands where a task's name does; no task can be called so."""


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One graded completion and where in the run it was made; a line of `scores.jsonl`."""

    run: str
    """Name of the run folder it was made in."""
    row: int
    """Row of the score matrix: 0 the base, i after stage i."""
    cycle: int | None
    """Index of the cycle it was measured after, from 0; None at the end of a stage."""
    sample: SampleScore
    gold: str | None = None
    """Hash of the gold answer it was graded by; None where an older version did not keep it."""
    reused: bool = False
    """Whether it repeats an earlier row of the same weights, text and example: nothing was drawn
    for it."""
    cluster: str | None = None
    """`Example.cluster`; None where the example is on its own, or in a file of an older version."""


@dataclass(frozen=True, slots=True)
class CycleEvent:
    """What channels spent in one cycle; one event for all of them, or one each."""

    event: ClassVar[str] = "cycle"
    stage: int
    """Index of the stage, from 0."""
    cycle: int
    """Index of the cycle within the stage, from 0."""
    rollouts: Mapping[str, int]
    """Completions sampled, by channel (`fast`, `slow`)."""
    seconds: Mapping[str, float]
    """Wall time, by channel."""
    metrics: Mapping[str, float | None]
    """What the channels reported, by `channel/name`; None where not finite."""
    notes: Sequence[str] = ()
    """What a reader must know; may quote untrusted text."""
    time: float | None = None
    """When it was recorded, in seconds since 1970; None where an older version did not say."""
    tokens: Mapping[str, int] | None = None
    """Tokens of those completions, by channel; None in folders of older versions."""


@dataclass(frozen=True, slots=True)
class StepEvent:
    """One optimizer update of the slow channel; a line of `metrics.jsonl`."""

    event: ClassVar[str] = "step"
    stage: int
    cycle: int
    step: int
    """Optimizer updates since the start of the stage, from 1."""
    metrics: Mapping[str, float | None]
    """By `channel/name`; None where not finite."""
    time: float | None = None
    """As in `CycleEvent`."""


@dataclass(frozen=True, slots=True)
class TextEvent:
    """The text that a task is deployed with from here on."""

    event: ClassVar[str] = "text"
    stage: int
    task: str
    role: Literal["live"]
    program: PromptProgram
    validation_mean: float | None
    """Mean score in [0, 1] on validation, by which it was chosen; None if it was not scored."""
    validation_n: int
    """Validation examples behind that mean."""
    rollouts: int = 0
    """Completions sampled to choose it; they count as the fast channel's."""
    seconds: float = 0.0
    """Wall time of choosing it; counts as the fast channel's."""


@dataclass(frozen=True, slots=True)
class ReoptimizedEvent:
    """After the last stage the text of an earlier task was evolved again; it is not deployed."""

    event: ClassVar[str] = "reoptimized"
    task: str
    program: PromptProgram
    validation_mean: float
    """As in `TextEvent`, but always scored."""
    validation_n: int
    rollouts: int
    """Completions sampled to find it: its budget. They count as the evaluation's."""


@dataclass(frozen=True, slots=True)
class RemedyEvent:
    """What a remedy against forgetting did at the end of a stage, and what that cost."""

    event: ClassVar[str] = "remedy"
    stage: int
    task: str
    name: str
    """The remedy's name in the run: its kind, or that of a user's own; `-2` for a second of it."""
    figures: Mapping[str, float | None]
    """What it reports, by name; None where a figure is not defined.

    `shrink` reports `keep_share`, `factor`, `validation_start`, `_before`, `_after`, `_n`,
    `kl_before`, `kl_after`, and for every earlier task `earlier_before/TASK` and
    `earlier_after/TASK`.
    """
    notes: Sequence[str] = ()
    """What a reader must know, a sentence each."""
    rollouts: int = 0
    """Completions sampled for it when the stage began and ended; they count as slow ones."""
    seconds: float = 0.0
    """Wall time when the stage began and ended; counts as the slow channel's."""
    update_seconds: float = 0.0
    """Wall time within the stage's updates, which is in that of its cycles too."""
    bytes: int = 0
    """Size of what it remembers from here on."""


@dataclass(frozen=True, slots=True)
class PopulationEvent:
    """The texts kept after a fast phase, best first."""

    event: ClassVar[str] = "population"
    stage: int
    cycle: int
    task: str
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class DriftEvent:
    """A divergence between the tuned policy and the base on some inputs, or what goes with it."""

    event: ClassVar[str] = "drift"
    row: int
    """Row of the score matrix."""
    task: str
    """Whose test inputs; `NEUTRAL` for prose of no task."""
    name: str
    """Which divergence, with its direction, e.g. `kl_fst`; or an entropy or cross-entropy."""
    value: float | None
    """Nats per generated token; None when not measured."""
    reason: str | None
    """Why `value` is None."""
    tokens: int
    """Generated tokens behind it."""
    text_hash: str
    """The text both policies were given; empty where there was none."""
    text: Literal["with_text", "without_text"] = "with_text"
    """The deployed text, or the seed text in its place."""
    se: float | None = None
    """Standard error over completions; None where there is none."""


@dataclass(frozen=True, slots=True)
class BaseDrawsEvent:
    """What the base drew on some inputs: it never changes, so it draws them once in a run."""

    event: ClassVar[str] = "base_draws"
    task: str
    """Whose test inputs; `NEUTRAL` for prose of no task."""
    text_hash: str
    """The text it was given; empty where there was none."""
    completions: tuple[tuple[int, ...], ...]
    """Token ids, one completion per input, in the inputs' order."""


@dataclass(frozen=True, slots=True)
class FiguresEvent:
    """Figures that need the model itself, of one kind, on one thing."""

    event: ClassVar[str] = "figures"
    row: int
    """Row of the score matrix."""
    kind: str
    """`geometry`, `overlap`, `proxies`, or the name of a measure, shipped or the user's own."""
    of: str
    """What was measured: a stage, a pair of stages, or inputs."""
    figures: tuple[Metric, ...]
    numbers: Mapping[str, float]
    """Numbers that later measurements and readers need as well as the figures."""


@dataclass(frozen=True, slots=True)
class EvaluationEvent:
    """One part of measuring a row of the score matrix is complete: what it cost."""

    event: ClassVar[str] = "evaluation"
    row: int
    rollouts: int
    """Completions sampled, from the tuned policy and from the base."""
    seconds: float
    """Wall time."""
    part: str = "matrix"
    """`matrix` is the cells of the headline matrix; the others are named where they are made."""
    reused: int = 0
    """Score rows that repeat earlier ones; nothing was sampled for them."""
    time: float | None = None
    """As in `CycleEvent`."""


@dataclass(frozen=True, slots=True)
class GuessEvent:
    """What guessing scores on a task's test sample: the lines that a score must be above."""

    event: ClassVar[str] = "guess"
    task: str
    guess: Guess


@dataclass(frozen=True, slots=True)
class DeployEvent:
    """From here on the policy that a stage left is the one in use; a line of `deployed.jsonl`."""

    event: ClassVar[str] = "deploy"
    row: int
    """Row of the score matrix: the policy after the stage with this number, from 1."""
    before: int
    """The row that was in use until then."""
    folder: str
    """Where adapter and texts lie, relative to the run folder."""
    weights: Mapping[str, str]
    """Task name to the fingerprint of the adapter it is deployed with."""
    texts: Mapping[str, str]
    """Task name to the hash of the text it is deployed with."""
    at: str
    """When, as an ISO 8601 time in UTC."""


@dataclass(frozen=True, slots=True)
class GraderEvent:
    """Some answers of a step could not be graded and count as score 0, or a grader printed."""

    event: ClassVar[str] = "grader"
    stage: int
    cycle: int
    """Index of the cycle; the number of cycles for steps after the last one."""
    step: str
    """Name of the step of the loop."""
    task: str
    failures: int
    """Answers of the step that could not be graded."""
    graded: int
    """Answers of the task graded since the stage began."""
    last: str
    """Why the last one failed; may quote untrusted text. Empty where none did."""
    printed: str = ""
    """The end of what the grader printed last; untrusted."""


@dataclass(frozen=True, slots=True)
class DataEvent:
    """What a task of the run holds, as it was when the run began."""

    event: ClassVar[str] = "data"
    data: DataSummary


@dataclass(frozen=True, slots=True)
class RunEvent:
    """The run entered a state."""

    event: ClassVar[str] = "run"
    state: str
    """One of `run_lock.STATES`."""
    seconds: float
    """Wall time spent in the run until now, over all resumes."""
    saving_seconds: float | None = None
    """Part of it that went into resume points; None where an older version did not measure it."""
    peak_gb: float | None = None
    """Most memory of this process, see `calibration.peak_gb`; None in older folders."""
    parameters: int | None = None
    """Parameters of the model with its adapter; None in older folders, as `trainable`."""
    trainable: int | None = None
    """Those of them that are trained."""


Event: TypeAlias = Union[
    CycleEvent,
    StepEvent,
    TextEvent,
    ReoptimizedEvent,
    RemedyEvent,
    PopulationEvent,
    DriftEvent,
    BaseDrawsEvent,
    FiguresEvent,
    EvaluationEvent,
    GuessEvent,
    DeployEvent,
    GraderEvent,
    DataEvent,
    RunEvent,
]
