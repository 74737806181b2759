"""What a tracker is: a class that receives what a run produces, declared in Python.

Records in the run folder are the truth; a tracker decides nothing, and one that fails stops no run.
A tracker of the user's own is one function in a file `trackers/NAME.py`, named by
`tracking: {kind: custom, use: NAME}`, or in any importable module, as `package.module:function`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

from fastslow.core.plugins import Definition, PluginConfig
from fastslow.core.prompts import PromptProgram
from fastslow.core.samples import Sample
from fastslow.core.types import Example, Json

Status: TypeAlias = Literal["finished", "failed", "interrupted"]


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """The run that a tracker hears of."""

    name: str
    """Name of the run folder."""
    identity: str
    """Hex digits that no other run has, the same after every resume."""
    folder: Path
    """The run folder."""
    config: Mapping[str, Json]
    """The resolved configuration, nested as in config.json."""
    since: float = 0.0
    """Seconds since 1970: points of an earlier part that are later than this may come again."""


@dataclass(frozen=True, slots=True)
class TaskSplit:
    """One split of a task's data."""

    task: str
    split: str
    """`train`, `validation` or `test`."""
    fingerprint: str
    """Twelve hex digits that change with any question or answer."""
    size: int
    """Examples."""
    examples: Sequence[Example] = ()
    """Of the test split those that are scored; empty where they are not at hand."""


@dataclass(frozen=True, slots=True)
class TrackedSample:
    """A rollout that a run kept for people; untrusted text."""

    name: str
    """Its place in the run, which no other has."""
    time: float
    """When its cycle was recorded, in seconds since 1970."""
    sample: Sample


class Tracker:
    """Receives what a run produces, as it is produced; every method does nothing unless overridden.

    Whatever a method raises is counted, named once in a warning, and survived. After a resume, and
    when `fastslow track` sends a run's records, the same things come again, with the same time:
    twice should be once.
    """

    buffers: ClassVar[bool] = False
    """Whether it keeps back some of what it was told, which a kill of the process takes with it. A
    resume then sends the records again."""

    def prepare(self) -> None:
        """Make what runs share, e.g. a database, before several of them start at the same time."""

    def begin(self, run: TrackedRun) -> None:
        """A run starts, or is resumed; comes before everything else."""

    def begin_stage(self, stage: int, task: str) -> None:
        """A stage starts, or is resumed, index from 0."""

    def data(self, splits: Sequence[TaskSplit]) -> None:
        """What the tasks of the run hold; comes after `begin`."""

    def log(self, metrics: Mapping[str, float], step: int, time: float, stage: int | None) -> None:
        """Finite values, by `channel/name`, `score/task`, `average_accuracy` and the like.

        In a stage, `step` counts optimizer updates or cycles since it began. `stage` is None for
        what is measured of the base and after a stage: `step` is then the row of the score matrix,
        and each name has one value a row. `time` is in seconds since 1970.
        """

    def samples(self, stage: int, task: str, samples: Sequence[TrackedSample]) -> None:
        """A few rollouts of a stage that is complete."""

    def artifact(self, path: Path, stage: int | None) -> None:
        """A file or a folder of the run is complete; it may be replaced later."""

    def prompts(
        self, stage: int, task: str, prompts: Sequence[PromptProgram], live: PromptProgram
    ) -> None:
        """A task's prompts as they are after a stage, best first, and the one it is deployed with.

        `live` is among `prompts` or an older one.
        """

    def end_stage(self, stage: int, status: Status) -> None:
        """A stage ended."""

    def end(self, status: Status) -> None:
        """The run ended; nothing comes after, unless it is resumed."""


class TrackerConfig(PluginConfig):
    """Parameters of a tracker. Subclass it; its fields are the schema YAML is checked against."""


@dataclass(frozen=True)
class TrackerDefinition(Definition[Tracker]):
    """A tracker's function with name, source and parameter schema; made by `@tracker`."""

    noun: ClassVar[str] = "tracker"
    folder: ClassVar[str] = "trackers"


def tracker(*, name: str, source: str) -> Callable[[Callable[[Any], Tracker]], TrackerDefinition]:
    """Declare a tracker: a function that takes its `TrackerConfig` and gives a `Tracker`.

    Raises:
        TypeError: The function does not take exactly one argument annotated with a `TrackerConfig`.
    """
    return TrackerDefinition.declare(TrackerConfig, name, source)
