"""A slow phase in the making: what a resume point within it holds beside weights and optimizer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from fastslow.types import Evidence


@dataclass
class Phase:
    """A slow phase so far; saved with a resume point that is made within it."""

    stage: int
    cycle: int
    weights: str
    """Fingerprint of the adapter at its start."""
    texts: str
    """Fingerprint of the texts at its start."""
    figures: list[dict[str, float]] = field(default_factory=list)
    """Of each batch so far."""
    samples: list[str] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    learned: bool = False
    """Whether an update had something to learn from."""
    rollouts: int = 0
    """Completions this process drew."""
    seconds: float = 0.0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `dataclasses.asdict`.

        Raises:
            KeyError, TypeError: It is not such data.
        """
        evidence = [Evidence(**found) for found in data["evidence"]]
        return cls(**{**data, "evidence": evidence})
