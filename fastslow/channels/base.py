"""What a channel is: something that adapts the policy on an anchor set, and can be resumed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias

from fastslow.core.prompts import PromptProgram
from fastslow.core.types import Anchor, Evidence
from fastslow.policy.policy import Policy
from fastslow.task.definition import Task

StepLog: TypeAlias = Callable[[int, int, Mapping[str, float]], None]
"""Takes steps done, steps in all, and figures by name; called during the work."""


@dataclass(frozen=True)
class Adaptation:
    """What one call of a channel cost and reports."""

    rollouts: int
    """Completions drawn, every one of them."""
    seconds: float
    """Wall time."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Figures by name: means over the cycle, sums of what is counted."""
    samples: tuple[str, ...] = ()
    """Some of what was drawn, as readable lines; untrusted text."""
    tokens: int = 0
    """Of the completions drawn."""
    notes: tuple[str, ...] = ()
    """What a reader of the report must know, one sentence each; may quote untrusted text."""
    evidence: tuple[Evidence, ...] = ()
    """Graded completions that another channel may learn from."""


@dataclass(frozen=True)
class RemedyReport:
    """What a remedy of a channel did at the end of a stage, and what that cost."""

    name: str
    """The remedy's name in the run."""
    figures: Mapping[str, float | None]
    """By name; None where a figure is not defined."""
    notes: tuple[str, ...]
    """What a reader of the report must know, a sentence each."""
    rollouts: int
    """Completions drawn for it when the stage began and when it ended."""
    seconds: float
    """Wall time when the stage began and when it ended."""
    update_seconds: float = 0.0
    """Wall time within the stage's updates, whose own time has it too."""
    bytes: int = 0
    """Size of what it remembers from here on."""
    text: PromptProgram | None = None
    """To be deployed for the stage's task from here on; None leaves its text as it is."""


class Assessor(Protocol):
    """Scores the policy as it is at the end of a stage; the loop hands it to the channels."""

    def score(self, task: Task, text: PromptProgram | None = None) -> Mapping[str, float]:
        """Validation score of each example by its id, greedy, under that or the deployed text."""
        ...

    def kl(self, task: Task) -> float | None:
        """KL(tuned || base) on validation inputs in nats per token; None where turned off."""
        ...


class Channel(Protocol):
    """Adapts a policy. Channels know neither each other nor the loop."""

    name: str
    """`fast` or `slow`."""

    def adapt(
        self, policy: Policy, task: Task, anchor: Anchor, seed: int, log: StepLog
    ) -> Adaptation:
        """Change the policy's texts (fast) or its adapter (slow) in place on a cycle's problems.

        `seed` is that of every draw this call makes.

        Raises:
            ChannelError: The policy could not be adapted; names the cause.
        """
        ...

    def begin(self, policy: Policy, task: Task, stage: int, *, takes_part: bool) -> None:
        """Get the policy ready for a stage, whether or not the channel takes part in it."""
        return

    def end(
        self, policy: Policy, task: Task, stage: int, assessor: Assessor
    ) -> Sequence[RemedyReport]:
        """Finish a stage the channel took part in, its text chosen; may still change the policy."""
        ...

    def save(self, folder: Path) -> None:
        """Write what the next call needs beyond the policy itself."""
        return

    def load(self, folder: Path) -> None:
        """Take back what `save` wrote; the next call then does what it would have done."""
        return
