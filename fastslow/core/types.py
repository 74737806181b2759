"""The words every layer shares, as frozen data. No behaviour, no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, Union

FULL_MARKS = 1.0 - 1e-9
"""The lowest score that counts as a success; below it there is something to learn."""

Json: TypeAlias = Union[bool, int, float, str, Sequence["Json"], Mapping[str, "Json"], None]
TokenIds: TypeAlias = tuple[int, ...]
PromptPolicy: TypeAlias = Literal["seed", "own", "live", "reopt"]

ArmName: TypeAlias = Literal["seed", "live", "base"]
"""One of the ways a task can be answered after a stage: its seed prompt or its deployed prompt with
the present weights, or its deployed prompt with those of the base."""


@dataclass(frozen=True, slots=True)
class Example:
    """One item of a task."""

    id: str
    """Unique within its task, over all three splits; stable between runs."""
    question: str
    """The input, without any instruction."""
    answer: str
    """The gold answer, written as the policy should write it."""
    metadata: Mapping[str, Json] = field(default_factory=dict)
    """Data for the grader beyond `answer`; never shown to the policy."""
    cluster: str | None = None
    """Its source, where several examples share one, e.g. the text that several questions are about:
    intervals then count sources, not examples. None: it is on its own."""


@dataclass(frozen=True, slots=True)
class Grade:
    """A grader's verdict on one completion."""

    score: float
    """In [0, 1], higher is better."""
    reason: str
    """One sentence: why not full marks, or "correct"."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn."""

    max_tokens: int
    """Limit of one completion, in tokens, the stop token included; >= 1."""
    temperature: float = 0.0
    """0 takes the most likely token; 1 draws from the model's own distribution."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The engine's result for one prompt."""

    token_ids: TokenIds
    """Sampled tokens; ends with the stop token when `finish` is "stop". Never empty."""
    logprobs: tuple[float, ...]
    """Natural-log probability of each token at temperature 1 under the sampling weights."""
    text: str
    """Decoded without special tokens."""
    finish: Literal["stop", "length"]
    """Whether the policy ended the completion or `max_tokens` did."""


@dataclass(frozen=True, slots=True)
class SampleScore:
    """One graded completion: the raw record every metric is computed from."""

    task: str
    """Name the run gives the task."""
    version: str
    """`definition@version`, e.g. `arithmetic@1`."""
    example: str
    """`Example.id`."""
    sample: int
    """Which sample of this example, from 0."""
    prompt_policy: PromptPolicy
    """Which prompt was used: the task's `seed` prompt, or the one `live` in deployment."""
    text_hash: str
    """`PromptProgram.text_hash` of that prompt."""
    weights: str
    """Fingerprint of base and adapter."""
    completion: str
    """Text of the policy; untrusted."""
    tokens: int
    """Tokens in the completion, the stop token included."""
    score: float
    """In [0, 1], higher is better."""
    reason: str
    """`Grade.reason`."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a report, or the reason why it has no value."""

    name: str
    """As in docs/methods.md, e.g. `bwt_gem`."""
    value: float | None
    """None when undefined; never 0, -1 or NaN in its place."""
    reason: str | None
    """Why `value` is None; None when there is a value."""
    formula: str
    """The formula and its source, in one line."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The problems of one optimizer update, each with its task."""

    rows: tuple[tuple[str, Example], ...]
    """Name of the task, and the problem."""

    @property
    def examples(self) -> tuple[Example, ...]:
        """The problems alone, in order."""
        return tuple(example for _, example in self.rows)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A graded completion that one channel drew and another may learn from."""

    example: str
    """`Example.id`."""
    completion: str
    """Text of the policy; untrusted."""
    score: float
    """In [0, 1], higher is better."""
    reason: str
    """`Grade.reason`."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """The problems of the next T updates, on which the fast channel evolves its prompts."""

    stage: int
    """Index of the stage, from 0."""
    cycle: int
    """Index of the cycle within the stage, from 0."""
    num_cycles: int
    """Cycles in this stage."""
    batches: tuple[Batch, ...]
    """One per optimizer update, in order."""
    pool: tuple[Example, ...]
    """Training examples kept out of every batch, from which demonstrations may be taken."""
    evidence: tuple[Evidence, ...] = ()
    """Graded completions of the cycle before, on this task; empty unless they may be reused."""
    stream: tuple[tuple[str, Example], ...] = ()
    """Every problem that an update of the stage meets, in any cycle, once; each with its task."""

    @property
    def examples(self) -> tuple[Example, ...]:
        """The anchor set: the distinct problems of all batches, in order."""
        seen = {example.id: example for batch in self.batches for example in batch.examples}
        return tuple(seen.values())
