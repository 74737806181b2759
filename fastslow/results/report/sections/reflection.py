"""What the reflection LM of a run was asked and cost, summed over its fast phases."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from fastslow.core.types import Json
from fastslow.records.events import CycleEvent

PREFIX = "fast/reflection_"


@dataclass(frozen=True, slots=True)
class ReflectionAccount:
    """Requests to the reflection LM, none of them a rollout of a task."""

    calls: int
    """Requests answered."""
    failures: int
    """Attempts without an answer."""
    prompt_tokens: int | None
    """None where a service did not say."""
    completion_tokens: int | None
    """None where a service did not say."""
    cost_usd: float | None
    """By list prices; None where one is not known, as for the policy's own base."""
    phases: int
    """Fast phases in which it was asked."""
    away: int
    """Of these, the ones in which it stayed away."""

    def to_json(self) -> dict[str, Json]:
        """Plain data, one key a field."""
        return asdict(self)


def reflection_account(events: Iterable[object]) -> ReflectionAccount | None:
    """The sum over every fast phase that had a reflection LM; None without one."""
    phases = [
        event.metrics
        for event in events
        if isinstance(event, CycleEvent) and f"{PREFIX}calls" in event.metrics
    ]
    if not phases:
        return None

    def total(name: str) -> float | None:
        values = [metrics.get(PREFIX + name) for metrics in phases]
        known = [value for value in values if value is not None]
        return sum(known) if len(known) == len(values) else None

    def whole(name: str) -> int | None:
        value = total(name)
        return None if value is None else int(value)

    return ReflectionAccount(
        calls=whole("calls") or 0,
        failures=whole("failures") or 0,
        prompt_tokens=whole("prompt_tokens"),
        completion_tokens=whole("completion_tokens"),
        cost_usd=total("cost_usd"),
        phases=len(phases),
        away=whole("away") or 0,
    )
