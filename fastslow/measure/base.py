"""What a measure is: figures of the policy that made a row of the score matrix; needs no torch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from fastslow.core.plugins import Definition, PluginConfig
from fastslow.core.types import ArmName, Example, Metric
from fastslow.task.definition import Task

if TYPE_CHECKING:
    from fastslow.measure.model.magnitudes import Deltas
    from fastslow.policy.policy import Policy


@dataclass(frozen=True)
class Snapshot:
    """The policy that made a row, and what it can be measured on."""

    policy: "Policy"
    """Not to be changed."""
    row: int
    """Row of the score matrix: 0 the base, i after stage i."""
    tasks: Mapping[str, Task]
    """Every column of the matrix, by name."""
    visited: tuple[str, ...]
    """Tasks of the stages up to this row, in order, each once."""
    latest: str | None
    """Task of the stage that made the row; None for the base."""
    test_sample: Callable[[Task], Sequence[Example]]
    """The test examples that the matrix is made of."""
    scores: Callable[[Task], Mapping[str, float]]
    """This row's score of each of them by its id, in [0, 1], under the deployed text."""
    arm_scores: Callable[[Task, ArmName], Mapping[str, float]]
    """The same under an arm. What the run has not scored yet is drawn now, and recorded."""
    validation_sample: Callable[[Task, int], Sequence[Example]]
    """So many validation examples of a task, the same in every run; fewer where there are fewer."""
    stage_change: "Deltas | None"
    """What the stage that made the row changed, matrix by matrix; None where it trained nothing."""
    change: "Deltas | None"
    """What the present adapter adds to the base; None for the base, and for a run without one."""
    seed: int
    """For every draw of this measure in this row."""


@dataclass(frozen=True)
class Measured:
    """Figures on one thing."""

    subject: str
    """What was measured: a task, a stage, some inputs."""
    figures: tuple[Metric, ...]
    numbers: Mapping[str, float] = field(default_factory=dict)
    """What readers need in addition to the figures, e.g. sample sizes."""


Measure: TypeAlias = Callable[[Snapshot], Iterable[Measured]]


@dataclass(frozen=True, slots=True)
class RowSize:
    """What the cost of a measure in one row of the matrix follows from."""

    row: int
    """0 the base, i after stage i."""
    tests: tuple[int, ...]
    """Test examples of every task."""
    visited: tuple[int, ...]
    """Those of the tasks visited up to this row."""


@dataclass(frozen=True, slots=True)
class MeasurePrice:
    """The most that a measure computes in one row, in rollouts of a few tokens each."""

    rollouts: int = 0
    """Drawn."""
    extra: int = 0
    """Any other work, in rollouts that take about as long."""


class MeasureConfig(PluginConfig):
    """Parameters of a measure. Subclass it; its fields are the schema YAML is checked against."""

    needs_change: ClassVar[bool] = False
    """Whether it measures nothing unless the slow channel changes weights."""

    needs_whole_base: ClassVar[bool] = False
    """Whether it edits the base's weights, or differentiates by them: no process has all of them
    under `engine.sharding`."""

    def price(self, size: RowSize) -> MeasurePrice:
        """The most that it computes in a row of this size, for `fastslow check`."""
        return MeasurePrice()


@dataclass(frozen=True)
class MeasureDefinition(Definition[Measure]):
    """A measure's function with its name and parameters; made by `@measure`."""

    noun: ClassVar[str] = "measure"
    folder: ClassVar[str] = "measures"


def measure(*, name: str, source: str) -> Callable[[Callable[[Any], Measure]], MeasureDefinition]:
    """Declare a measure by its name in records and reports, and the source that it comes from.

    The function's annotated `MeasureConfig` is its parameter schema.

    Raises:
        TypeError: The function does not take exactly one argument annotated with a `MeasureConfig`.
    """
    return MeasureDefinition.declare(MeasureConfig, name, source)
