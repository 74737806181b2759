"""What a measure is: figures of the policy that made a row of the score matrix; needs no torch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from fastslow.core.plugins import Definition, PluginConfig
from fastslow.core.types import ArmName, Example, Metric
from fastslow.task.definition import Task

if TYPE_CHECKING:
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


@dataclass(frozen=True)
class Measured:
    """Figures on one thing."""

    subject: str
    """What was measured: a task, a stage, some inputs."""
    figures: tuple[Metric, ...]
    numbers: Mapping[str, float] = field(default_factory=dict)
    """What readers need in addition to the figures, e.g. sample sizes."""


Measure: TypeAlias = Callable[[Snapshot], Iterable[Measured]]


class MeasureConfig(PluginConfig):
    """Parameters of a measure. Subclass it; its fields are the schema YAML is checked against."""


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
