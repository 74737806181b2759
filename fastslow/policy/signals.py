"""Signals: how hard a problem looks before anything is drawn. Pure functions of one reading.

Light: a configuration is checked without torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from fastslow.core.keys import Model, key
from fastslow.core.plugins import Definition, PluginConfig

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
