"""Settings of the fast channel: optimizers of prompts, their budgets, the reflection LM.

`proposals` says how many new prompts a budget certainly pays for. `fastslow check` refuses a budget
by it before a run, and a fast phase plans by it. `rollouts` is the budget after old prompts were
re-scored, `anchor` the number of problems a prompt is scored on, `pool` that of the examples
demonstrations are taken from, `old` that of the prompts it starts from. Answers that are known
already cost nothing, and leave room for more.
"""

import re
from collections.abc import Callable
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    field_validator,
    model_validator,
)

from fastslow.core.keys import FST, OURS, KeylessModel, Model, key, kind_among
from fastslow.policy.signals import ActingSignal

SELF = "self"
"""Name of the policy's base as its own reflection LM."""
FEWEST_PROPOSALS = 2
"""A fast phase that cannot make this many new prompts is refused: one is not a search."""


class ReflectionSettings(KeylessModel):
    """The reflection LM, which reads how prompts fared and writes better ones.

    Its key comes from the environment alone; a section that holds one is refused.
    """

    key_advice = (
        ", never from a file or the command line: put it into a variable, name that in api_key_env "
        "if it is not the provider's usual one, and replace the key"
    )

    model: str = key(SELF, "name", "P2O, arXiv 2603.21877, has self-reflection", min_length=1)
    """`self`, the policy's base with the adapter off, or a model string of DSPy or LiteLLM, e.g.
    `openai/gpt-5-mini`; `openai/NAME` with `api_base` is any server that speaks OpenAI's chat
    completions."""
    api_base: str | None = key(None, "address", "the provider's own")
    """Address of the server, with its version, e.g. `http://127.0.0.1:8000/v1`. One on this machine
    needs no key."""
    api_key_env: str | None = key(None, "name", "the provider's usual one, e.g. OPENAI_API_KEY")
    """Environment variable that holds the key."""
    temperature: NonNegativeFloat = key(1.0, "temperature", "GEPA's advice for reflection LMs")
    """Sampling temperature of its answers."""
    max_tokens: PositiveInt = key(1024, "tokens", OURS)
    """Limit of one answer; models that think before they answer need many times that."""
    timeout_s: PositiveFloat = key(120.0, "seconds", OURS)
    """A request without an answer after this time counts as failed; `self` has no limit."""
    attempts: PositiveInt = key(5, "requests", OURS)
    """After this many in a row without an answer the model counts as away, and the phase ends."""
    wait_s: PositiveFloat = key(1.0, "seconds", OURS)
    """Longest wait after the first failure; doubles with each, up to a minute."""
    playbook_items: NonNegativeInt = key(
        3, "items", "SkillRL, arXiv 2602.08234: at most 3 new skills per round"
    )
    """Worked examples, and as many lessons, that `reuse_slow_rollouts` shows the reflection LM in
    one cycle."""
    playbook_tokens: PositiveInt = key(256, "tokens", OURS)
    """Limit of those worked examples together, in the policy's tokens."""

    @field_validator("api_base")
    @classmethod
    def _is_address(cls, address: str | None) -> str | None:
        if address is not None and not address.startswith(("http://", "https://")):
            raise ValueError(
                "not an address that starts with http:// or https://. Write it with its version, "
                "e.g. http://127.0.0.1:8000/v1."
            )
        return address

    @field_validator("api_key_env")
    @classmethod
    def _is_variable(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Z][A-Z0-9_]{2,63}", name):
            raise ValueError(
                "not the name of an environment variable: capitals, digits and _, e.g. MY_API_KEY. "
                "The key itself belongs into that variable."
            )
        return name


DemonstrationOrder: TypeAlias = Literal[
    "random", "similar", "easy_first", "hard_first", "signal_easy_first", "signal_hard_first"
]


class DemosKeys(Model):
    """Settings of the search over demonstrations, through DSPy; no second language model."""

    kind: Literal["demos"] = key("demos", "name", "DSPy, BootstrapFewShotWithRandomSearch")
    """Which optimizer of prompts."""
    demonstrations: PositiveInt = key(4, "demonstrations", OURS)
    """Demonstrations in one prompt, at most; roughly this many under simba."""
    demonstration_order: DemonstrationOrder = key("random", "name", "DSPy")
    """Order in a prompt: as drawn; most like the anchor problems last; by measured pass rate; by a
    signal, which costs no rollout."""
    demonstration_signal: ActingSignal | None = key(None, "section", "none; SG-ICL's code has l0")
    """The signal that `signal_easy_first` and `signal_hard_first` order by. It is read off the pool
    once per phase, under the best earlier prompt without its demonstrations."""

    @model_validator(mode="after")
    def _order_has_signal(self) -> Self:
        if self.demonstration_order.startswith("signal_") == (self.demonstration_signal is None):
            raise ValueError(
                "the orders signal_easy_first and signal_hard_first need a demonstration_signal, "
                "e.g. {kind: l0, trusted: true}, and no other order reads one, got "
                f"demonstration_order {self.demonstration_order}. Name both, or neither."
            )
        return self

    def proposals(self, rollouts: int, anchor: int, pool: int, old: int) -> int:
        """Labelled and bootstrapped prompts take turns.

        A bootstrapped one asks for up to the whole pool, and makes way for a labelled one when that
        does not fit. An order by pass rate asks every example of the pool once first.
        """
        measures_pool = self.demonstration_order in ("easy_first", "hard_first")
        rollouts = max(0, rollouts - (pool if measures_pool else 0))
        pairs, rest = divmod(rollouts, 2 * anchor + pool)
        return 2 * pairs + rest // anchor  # less than a pair pays for labelled ones alone


class GepaKeys(Model):
    """Settings of reflective evolution of the instruction, through DSPy's GEPA."""

    kind: Literal["gepa"] = key("gepa", "name", "GEPA, arXiv 2507.19457")
    """Which optimizer of prompts."""
    minibatch: PositiveInt = key(3, "examples", "GEPA, arXiv 2507.19457")
    """M: examples of the pool that a proposal is made from and first compared on."""

    def proposals(self, rollouts: int, anchor: int, pool: int, old: int) -> int:
        """A proposal costs its parent's minibatch, its own, and the anchor set.

        Each old prompt but the first is brought in as a proposal, whose scores on the anchor set
        are known.

        Source: GEPA (arXiv 2507.19457) as the gepa package 0.1 counts it: 2M + V per proposal.
        """
        minibatches = 2 * self.minibatch
        return max(0, rollouts - (old - 1) * minibatches) // (minibatches + anchor)


class SimbaKeys(Model):
    """Settings of stochastic mini-batch ascent on rules and demonstrations, DSPy's SIMBA."""

    kind: Literal["simba"] = key("simba", "name", "DSPy, SIMBA")
    """Which optimizer of prompts."""
    demonstrations: PositiveInt = key(4, "demonstrations", OURS)
    """Demonstrations in one prompt, at most; roughly this many under simba."""
    batch: PositiveInt = key(4, "examples", "ours; DSPy's 32 would need thousands of rollouts")
    """Examples of the pool in one step."""
    candidates: int = key(3, "prompts", "ours; DSPy has 6", ge=2)
    """Answers drawn to each example of a step, and winners that are scored in the end, at most."""

    def proposals(self, rollouts: int, anchor: int, pool: int, old: int) -> int:
        """Prompts that get as far as the anchor set: the winners of the steps."""
        return min(self.candidates, self.num_steps(rollouts, anchor, pool))

    def num_steps(self, rollouts: int, anchor: int, pool: int) -> int:
        """Steps that fit, with SIMBA's last comparison and our scoring.

        A step draws `candidates` answers to each example of its batch and scores at most one prompt
        more than that on it. In the end up to `candidates` winners and the start are scored on all
        examples met so far, and we score the winners on the anchor set.

        Source: dspy.SIMBA of DSPy 3.4.
        """

        def cost(steps: int) -> int:
            answers = steps * self.batch * (2 * self.candidates + 1)
            winners, met = min(steps, self.candidates), min(pool, steps * self.batch)
            return answers + (winners + 1) * met + winners * anchor

        return first_number(lambda steps: cost(steps + 1) > rollouts)


class MiproKeys(Model):
    """Settings of a search over instructions times demonstrations, DSPy's MIPROv2."""

    kind: Literal["mipro"] = key("mipro", "name", "DSPy, MIPROv2; needs fastslow[mipro]")
    """Which optimizer of prompts."""
    demonstrations: PositiveInt = key(4, "demonstrations", OURS)
    """Demonstrations in one prompt, at most; roughly this many under simba."""
    candidates: int = key(3, "prompts", "ours; DSPy has 6 at least", ge=2)
    """Instructions, and sets of demonstrations, that are combined."""

    def proposals(self, rollouts: int, anchor: int, pool: int, old: int) -> int:
        """Trials: each scores one combination of instruction and demonstrations.

        Before them MIPRO scores its start and bootstraps all sets of demonstrations but two, going
        through the pool at most once for each.

        Source: dspy.MIPROv2 of DSPy 3.4.
        """
        return max(0, rollouts - anchor - max(0, self.candidates - 2) * pool) // anchor


class FastSettings(Model):
    """What every fast channel has."""

    population: PositiveInt = key(4, "prompts", FST + ", App. E: the light recipe")
    """K: prompts kept after each fast phase; must divide `slow.group`."""
    metric_calls: PositiveInt = key(
        320, "rollouts per cycle", FST + ", App. D: 5 per anchor problem"
    )
    """Budget of scoring: old prompts are re-scored first, the rest goes to new ones."""
    threads: PositiveInt = key(64, "requests", "fills one sampling batch")
    """Requests in flight; the engine gathers them into one batch."""
    max_instruction_chars: PositiveInt = key(4000, "characters", OURS)
    """A new prompt with a longer instruction is refused."""
    max_prompt_tokens: PositiveInt | None = key(None, "tokens", "the model's context length")
    """A new prompt is refused if it has more tokens than this with the longest question and its
    answer."""
    reuse_slow_rollouts: bool = key(
        False, "switch", FST + " says nothing; its authors' blog has it as future work"
    )
    """Whether rollouts of the slow phase before are evidence for this one: correct ones as
    demonstrations, without drawing again. An ablation."""


class ReflectiveSettings(FastSettings):
    """What every fast channel with a second language model has."""

    reflection: ReflectionSettings = Field(default_factory=ReflectionSettings)
    """The second language model."""


class DemosConfig(FastSettings, DemosKeys):
    """Fast channel: search over demonstrations; needs no second language model."""


class GepaConfig(ReflectiveSettings, GepaKeys):
    """Fast channel: reflective evolution of the instruction."""


class SimbaConfig(ReflectiveSettings, SimbaKeys):
    """Fast channel: rules and demonstrations from uneven answers."""


class MiproConfig(ReflectiveSettings, MiproKeys):
    """Fast channel: instructions and demonstrations, combined."""


class StepKeys(Model):
    """What every step of a sequence has."""

    share: PositiveFloat = key(1.0, "parts", "the same for every step")
    """Parts of the budget that this step gets, of all steps' parts together."""


class DemosStep(StepKeys, DemosKeys):
    """A step of a sequence: search over demonstrations."""


class GepaStep(StepKeys, GepaKeys):
    """A step of a sequence: reflective evolution of the instruction."""


class SimbaStep(StepKeys, SimbaKeys):
    """A step of a sequence: rules and demonstrations from uneven answers."""


class MiproStep(StepKeys, MiproKeys):
    """A step of a sequence: instructions and demonstrations, combined."""


StepConfig = Annotated[
    Annotated[DemosStep, Tag("demos")]
    | Annotated[GepaStep, Tag("gepa")]
    | Annotated[SimbaStep, Tag("simba")]
    | Annotated[MiproStep, Tag("mipro")],
    kind_among("demos", "gepa", "simba", "mipro"),
]
"""A step of a sequence: one model per `kind`."""


class SequenceConfig(ReflectiveSettings):
    """Fast channel: one optimizer after another, each on what the earlier ones left."""

    kind: Literal["sequence"] = key("sequence", "name", OURS)
    """Which optimizer of prompts."""
    steps: tuple[StepConfig, ...] = Field(min_length=1)
    """Optimizers in order, with their shares of the budget."""

    @property
    def shares(self) -> tuple[float, ...]:
        """Share of each step in the budget left after re-scoring; they add up to 1."""
        total = sum(step.share for step in self.steps)
        return tuple(step.share / total for step in self.steps)


FastConfig = Annotated[
    Annotated[DemosConfig, Tag("demos")]
    | Annotated[GepaConfig, Tag("gepa")]
    | Annotated[SimbaConfig, Tag("simba")]
    | Annotated[MiproConfig, Tag("mipro")]
    | Annotated[SequenceConfig, Tag("sequence")],
    kind_among("demos", "gepa", "simba", "mipro", "sequence"),
]
"""The fast channel's section: one model per `kind`."""


def fitting_proposals(
    fast: FastConfig, rollouts: int, anchor: int, pool: int, old: int
) -> list[int]:
    """New prompts that a phase certainly pays for, by step of a sequence."""
    if not isinstance(fast, SequenceConfig):
        return [fast.proposals(rollouts, anchor, pool, old)]
    return [
        step.proposals(int(share * rollouts), anchor, pool, old)
        for share, step in zip(fast.shares, fast.steps, strict=True)
    ]


def fewest_metric_calls(fast: FastConfig, anchor: int, pool: int) -> int:
    """The smallest `metric_calls` that pays for two new prompts in every step."""
    old = fast.population

    def is_enough(calls: int) -> bool:
        plan = fitting_proposals(fast, calls - old * anchor, anchor, pool, old)
        return min(plan) >= FEWEST_PROPOSALS

    return first_number(is_enough)


def first_number(holds: Callable[[int], bool]) -> int:
    """The smallest number >= 0 for which `holds`, which stays true for all larger ones.

    Takes time with the logarithm of the number, of any size: configurations may ask for anything.
    """
    low, high = 0, 1
    while not holds(high):
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low
