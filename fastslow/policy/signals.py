"""Signals: how hard a problem looks before anything is drawn. Pure functions of one reading.

Light: a configuration is checked without torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Discriminator

from fastslow.core.keys import OURS, Model, key
from fastslow.core.plugins import CustomUse, Definition, PluginConfig, find
from fastslow.policy.sparsity import MEASURES, sparsity

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Reading:
    """What one pass over a problem's prompt and its gold answer says, with nothing drawn.

    Exact at temperature 1, over the whole vocabulary.
    """

    example: str
    """`Example.id`."""
    prompt_tokens: int
    """Tokens of the whole prompt."""
    question_tokens: int
    """Of them, those of the question itself."""
    question_logprob: float
    """Mean log-probability of the question's tokens where they stand, nats."""
    first_entropy: float
    """Of the distribution of the first completion token, nats."""
    first_logprob: float
    """Of its most likely token, nats."""
    first_margin: float
    """Probability of its most likely token minus that of the second, in [0, 1]."""
    gold_logprob: float
    """Of the gold answer with its stop token, nats. Where the grader wants exactly that answer,
    its exponential is the pass rate at temperature 1, without sampling noise."""
    gold_is_greedy: bool
    """Whether every token of the gold answer is the most likely one."""
    state: "Float[Tensor, ' hidden']"
    """Last layer, last prompt token, after the final norm, float32."""
    unscaled: "Float[Tensor, ' hidden'] | None"
    """The same without that norm's learned scale and shift: the state before the norm, but for a
    factor (and for its mean, where the norm takes that away). None where no final norm is found."""


Signal: TypeAlias = Callable[[Reading], float | None]
"""Higher where the problem is harder; None where it is not defined."""


class SignalConfig(PluginConfig):
    """Parameters of a signal. Subclass it; its fields are the schema YAML is checked against."""


@dataclass(frozen=True)
class SignalDefinition(Definition[Signal]):
    """A signal's function with its name and parameters; made by `@signal`."""

    noun: ClassVar[str] = "signal"
    folder: ClassVar[str] = "signals"


def signal(*, name: str, source: str) -> Callable[[Callable[[Any], Signal]], SignalDefinition]:
    """Declare a signal from a paper or author; its annotated `SignalConfig` is its schema.

    Raises:
        TypeError: The function does not take exactly one argument annotated with a `SignalConfig`.
    """
    return SignalDefinition.declare(SignalConfig, name, source)


SignalName: TypeAlias = Literal[
    "first_entropy",
    "first_logprob",
    "first_margin",
    "gold_logprob",
    "prompt_length",
    "question_length",
    "question_logprob",
    "hoyer",
    "top1_energy",
    "top5_energy",
    "top10_energy",
    "energy_rank",
    "l1_rank",
    "l0",
    "gini",
    "hoyer_unscaled",
    "top1_energy_unscaled",
    "top5_energy_unscaled",
    "top10_energy_unscaled",
    "energy_rank_unscaled",
    "l1_rank_unscaled",
    "l0_unscaled",
    "gini_unscaled",
]


class ShippedSignal(Model):
    """A signal that comes with the package."""

    kind: SignalName = key(..., "name", "required")
    """Entropy of the first completion token; log-probability of its most likely token, of the gold
    answer, of the question, and margin of the most likely token, all negated; tokens of the prompt
    and of the question; sparsity of the last hidden state, as it is and without the final norm's
    scale."""


SPARSITY = (*MEASURES, *(f"{name}_unscaled" for name in MEASURES))
"""The signals that are measures of sparsity."""
PRIMARY: SignalName = "top5_energy"
"""The one of them that was named before looking: the main measure of arXiv 2603.03415."""
FREE: tuple[SignalName, ...] = (
    "first_entropy",
    "first_logprob",
    "first_margin",
    "question_length",
    "question_logprob",
)
"""Baselines that cost nothing beside them, in the same pass."""


def _of_state(name: str) -> Signal:
    return lambda reading: sparsity(name, reading.state)


def _of_unscaled(name: str) -> Signal:
    return lambda reading: None if reading.unscaled is None else sparsity(name, reading.unscaled)


SIGNALS: Mapping[str, Signal] = {
    "first_entropy": lambda reading: reading.first_entropy,
    "first_logprob": lambda reading: -reading.first_logprob,
    "first_margin": lambda reading: -reading.first_margin,
    "gold_logprob": lambda reading: -reading.gold_logprob,
    "prompt_length": lambda reading: float(reading.prompt_tokens),
    "question_length": lambda reading: float(reading.question_tokens),
    "question_logprob": lambda reading: -reading.question_logprob,
    **{name: _of_state(name) for name in MEASURES},
    **{f"{name}_unscaled": _of_unscaled(name) for name in MEASURES},
}
"""The shipped signals, by kind."""


class Grounds(Model):
    """Why a signal may act: by a report that earned it, or by the user's word."""

    trusted: bool = key(False, "switch", OURS)
    """Whether it may act without having been shown to tell hard problems from easy ones."""
    validity: str | None = key(None, "path", "none: it must be trusted")
    """What `fastslow signals` wrote for this model: signals.json, its folder, or that of its run.
    The signal acts only if it is earned there."""


class ShippedSignalToActOn(ShippedSignal, Grounds):
    """A signal of the package that something is decided by."""


class OwnSignalToActOn(CustomUse, Grounds):
    """A signal of the user's own that something is decided by."""


ActingSignal = Annotated[ShippedSignalToActOn | OwnSignalToActOn, Discriminator("kind")]
"""A signal that something is decided by."""


def signal_of(use: ShippedSignal | CustomUse) -> tuple[str, Signal]:
    """The name and the function of a signal that a configuration names.

    Raises:
        ConfigError: The user's own is not found.
        pydantic.ValidationError: Its parameters do not fit its schema.
    """
    if isinstance(use, CustomUse):
        definition = find(SignalDefinition, use.use)
        return definition.name, definition.build(use.params)
    return use.kind, SIGNALS[use.kind]
