"""Signals: how hard a problem looks before anything is drawn. Pure functions of one reading.

Light: a configuration is checked without torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Discriminator

from fastslow.core.keys import OURS, Model, key
from fastslow.core.plugins import CustomUse, Definition, PluginConfig, find

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
    """Tokens of the prompt, the text included."""
    first_entropy: float
    """Of the distribution of the first completion token, nats."""
    first_logprob: float
    """Of its most likely token, nats."""
    first_margin: float
    """Probability of its most likely token minus that of the second, in [0, 1]."""
    gold_logprob: float
    """Of the gold answer with its stop token, nats. Where the grader wants exactly that answer,
    its exponential is the pass rate at temperature 1, without sampling noise."""
    state: "Float[Tensor, ' hidden']"
    """Last layer, last prompt token, after the final norm, float32."""


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


class ShippedSignal(Model):
    """A signal that comes with the package."""

    kind: Literal["first_entropy", "first_logprob", "gold_logprob", "prompt_length"] = key(
        ..., "name", "required"
    )
    """Entropy of the first completion token; log-probability of its most likely token, or of the
    gold answer, negated; tokens of the prompt."""


SIGNALS: Mapping[str, Signal] = {
    "first_entropy": lambda reading: reading.first_entropy,
    "first_logprob": lambda reading: -reading.first_logprob,
    "gold_logprob": lambda reading: -reading.gold_logprob,
    "prompt_length": lambda reading: float(reading.prompt_tokens),
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
