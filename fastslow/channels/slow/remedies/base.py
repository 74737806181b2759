"""What a remedy against forgetting is: functions that the slow channel calls at fixed points.

A remedy has no state of its own. It remembers in a `Memory` that the slow channel hands it, saves
with every resume point and loads again; so it resumes bit for bit without its author having thought
of it. Imports neither torch nor trl: configurations are checked without them.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, get_args

from fastslow.core.plugins import Definition, PluginConfig
from fastslow.core.prompts import PromptProgram
from fastslow.core.types import Batch, TokenIds
from fastslow.task.definition import Task

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter
    from torch.optim import Optimizer

    from fastslow.policy.policy import Policy

Weights: TypeAlias = Mapping[str, "Parameter"]
"""The trainable part of the adapter by name: the parameters themselves."""
Figures: TypeAlias = dict[str, float]
AdapterPolicy: TypeAlias = Literal["continue", "merge-then-new", "new-per-stage"]


@dataclass(frozen=True, slots=True)
class StageSize:
    """What the cost of a remedy in one stage follows from."""

    earlier: int
    """Other tasks whose stages trained weights before."""
    rows: int
    """Rows that an update learns from without remedies."""
    validation: int
    """Examples of a task's validation sample."""
    text: int
    """Whether the fast channel takes part, so that the task may have a text of its own; 0 or 1."""


@dataclass(frozen=True, slots=True)
class RemedyPrice:
    """The most that a remedy computes in one stage, in rows of a few tokens each."""

    rows: int = 0
    """Learned in every update."""
    rollouts: int = 0
    """Drawn when the stage ends."""
    trained: int = 0
    """Learned from when the stage ends."""


class RemedyConfig(PluginConfig):
    """Parameters of a remedy. Subclass it; its fields are the schema YAML is checked against."""

    adapter_policies: ClassVar[tuple[AdapterPolicy, ...]] = get_args(AdapterPolicy)
    """Values of `slow.adapter_policy` under which the remedy makes sense."""
    why_not: ClassVar[str] = ""
    """What goes wrong under the others, as the rest of a sentence about the remedy."""
    needs_earlier: ClassVar[bool] = True
    """Whether it does nothing unless some other task was trained before."""

    def price(self, stage: StageSize) -> RemedyPrice:
        """The most that it computes in a stage of this size, for `fastslow check`."""
        return RemedyPrice()


def why_unfit(
    name: str, config: type[RemedyConfig], adapter_policy: str, *, has_earlier: bool
) -> str | None:
    """Why a remedy is not for a run, in a sentence with what to do; None where it is.

    `has_earlier`: some stage that trains weights comes after one of another task.
    """
    if config.needs_earlier and not has_earlier:
        return (
            f"{name} protects tasks of earlier stages, but fewer than two tasks of `stages` train "
            "weights. Add a stage, or remove it from slow.remedies."
        )
    if adapter_policy in config.adapter_policies:
        return None
    fitting = " or ".join(config.adapter_policies)
    return (
        f"{name} {config.why_not or 'is not for every adapter policy'}, which does not go with "
        f"slow.adapter_policy ({adapter_policy}). Set that to {fitting}, or remove {name} from "
        "slow.remedies."
    )


@dataclass
class Memory:
    """What a remedy remembers from stage to stage; saved with every resume point."""

    tensors: dict[str, "Tensor"] = field(default_factory=dict)
    """Saved as safetensors, by any names."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Plain data only, as JSON has it."""


@dataclass(frozen=True)
class Stage:
    """A visit to a task that trains weights."""

    policy: "Policy"
    task: Task
    index: int
    """From 0."""
    earlier: tuple[Task, ...]
    """Other tasks whose stages trained weights, oldest first, each once."""
    seed: int
    """Of every draw of this remedy in this stage."""


@dataclass(frozen=True)
class Update:
    """One optimizer update in the making."""

    stage: Stage
    batch: Batch
    step: int
    """Updates made in this stage so far."""
    seed: int
    """Of every draw of this remedy in this update."""
    lr: float
    """Learning rate of the update, after warm-up."""
    rows: Callable[[], Sequence[tuple[TokenIds, TokenIds]]]
    """Prompt and completion of every row that the update was made from, once it was made."""


@dataclass(frozen=True)
class Ended:
    """A stage that has ended, with its text chosen."""

    stage: Stage
    score: Callable[..., Mapping[str, float]]
    """`score(task, text=None)`: validation score of each example by its id, in [0, 1], greedy,
    under that text, or else the deployed one."""
    kl: Callable[[Task], float | None]
    """KL(tuned || base) on validation inputs in nats per token; None where it is turned off."""


@dataclass(frozen=True)
class EndReport:
    """What a remedy did at the end of a stage."""

    figures: Mapping[str, float | None] = field(default_factory=dict)
    """By name; None where a figure is not defined."""
    notes: tuple[str, ...] = ()
    """What a reader of the report must know, a sentence each."""
    text: PromptProgram | None = None
    """To be deployed for the stage's task from here on; None leaves its text as it is."""


@dataclass(frozen=True)
class Teacher:
    """Whose predictions are the goal of a row, at every position of its completion."""

    weights: "Literal['base', 'start', 'present'] | Mapping[str, Tensor]"
    """The base; the trainable weights as the stage found them (`policy.adapters.start`); the
    present ones, without a gradient; or these, by their names."""
    prompt: TokenIds
    """May differ from the row's own: that is what makes it better informed."""
    divergence: Literal["reverse", "forward"] = "reverse"
    """KL(student || teacher), or KL(teacher || student)."""


@dataclass(frozen=True)
class TaughtRow:
    """A completion to be learned: by its tokens, or by what a teacher predicts along it."""

    prompt: TokenIds
    completion: TokenIds
    """Ends with the stop token where the answer ends."""
    weight: float = 1.0
    """Among the rows of the same call."""
    teacher: Teacher | None = None
    """None: the negative log-probability of the completion's own tokens."""


@dataclass(frozen=True)
class Remedy:
    """Functions called at fixed points of a stage; None does nothing there.

    In stage 0 nothing is earlier: `rows` and `penalty` are not asked. An update without a signal
    makes no step, so nothing acts on it. Order is that of the list, in every hook.
    """

    begin: Callable[[Stage, Memory], None] | None = None
    """Before the first update of a stage."""
    is_over: Callable[[Memory], bool] | None = None
    """Whether the adaptation of this stage has to end: nothing more is drawn or updated."""
    attempt: Callable[[Update, Memory, "Optimizer", Callable[[], Figures]], Figures] | None = None
    """Around an update, which it makes by its last argument and may take back; gives figures."""
    standing: Callable[[Memory], Figures] | None = None
    """At the end of a phase: figures that stand in place of the means over its updates."""
    rows: Callable[[Update, Memory], Sequence[TaughtRow]] | None = None
    """Rows learned in addition: the mean over rows of the mean over tokens joins the loss, nats."""
    penalty: Callable[[Weights, Memory], "Tensor | None"] | None = None
    """A scalar that joins the loss, differentiable in the weights; None adds nothing."""
    project: Callable[[Weights, Memory], None] | None = None
    """After every gradient is there: edits `.grad` in place."""
    settle: Callable[[Weights, Memory, Update, "Optimizer"], None] | None = None
    """After the step: edits the weights in place."""
    end: Callable[[Ended, Memory], EndReport | Mapping[str, float | None]] | None = None
    """After the last update, with the text chosen; figures alone, or with notes."""
    strength: float = 1.0
    """Weight of `rows` and `penalty` in the loss."""
    is_silent: bool = False
    """Whether the report's table of remedies leaves it out; its figures are those of updates."""
    needs_start: bool = False
    """Whether `policy.adapters.start` is read: the weights as the stage found them."""


@dataclass(frozen=True)
class RemedyDefinition(Definition[Remedy]):
    """A remedy's function with its name and parameters; made by `@remedy`."""

    noun: ClassVar[str] = "remedy"
    folder: ClassVar[str] = "remedies"


def remedy(*, name: str, source: str) -> Callable[[Callable[[Any], Remedy]], RemedyDefinition]:
    """Declare a remedy from a paper or author; its annotated `RemedyConfig` is its schema.

    Raises:
        TypeError: The function does not take exactly one argument annotated with a
            `RemedyConfig`, or the name has other characters.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise TypeError(f"@remedy: expected a name of a-z, 0-9, _, got {name!r}.")
    return RemedyDefinition.declare(RemedyConfig, name, source)
