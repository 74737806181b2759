"""What configuration models are made of: base classes, keys with unit and source, unions."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, model_validator
from pydantic_core import PydanticCustomError

from fastslow.core.credentials import looks_like_key

FST = "Fast-Slow Training, arXiv 2605.12484"
OURS = "ours, docs/decisions.md"


class Model(BaseModel):
    """Base of every configuration model."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class RuledModel(Model):
    """A model with rules between its keys, checked when each key is right."""

    def broken_rules(self) -> Iterator[tuple[str, str]]:
        """Yield (key path, message) for every rule between keys that does not hold."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        if broken := dict(self.broken_rules()):
            context = {"text": "; ".join(broken.values()), "rules": broken}
            raise PydanticCustomError("broken_rules", "{text}", context)
        return self


class KeylessModel(Model):
    """A section in which no key may stand; what is refused is not repeated."""

    model_config = ConfigDict(hide_input_in_errors=True)
    key_advice: ClassVar[str]
    """Where keys go instead."""

    @model_validator(mode="before")
    @classmethod
    def _no_keys(cls, written: Any) -> Any:
        texts = written.values() if isinstance(written, dict) else ()
        if any(isinstance(text, str) and looks_like_key(text) for text in texts):
            raise ValueError(
                "holds what looks like a key or a password. Keys come from the environment alone"
                f"{cls.key_advice} if others can read this file."
            )
        return written


def key(default: Any, unit: str, source: str, **constraints: Any) -> Any:
    """A configuration key with its unit and the source of its default; `...` makes it required.

    The unit is e.g. "optimizer updates", and "name" or "switch" for words; the source a paper's
    section, a library, or a measurement.
    """
    return Field(default, json_schema_extra={"unit": unit, "source": source}, **constraints)


def kind_among(*kinds: str) -> Discriminator:
    """Which model checks a section: that of its `kind`; the first without one, or with a typo."""

    def kind_of(written: Any) -> str:
        kind = written.get("kind") if isinstance(written, dict) else getattr(written, "kind", None)
        return kind if kind in kinds else kinds[0]

    return Discriminator(kind_of)


Rate = Annotated[float, Field(gt=0, le=1)]
"""A share or a rate in (0, 1]."""
