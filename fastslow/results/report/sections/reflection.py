"""What the reflection LM of a run was asked and cost, summed over its fast phases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from fastslow.records.events import CycleEvent
from fastslow.results.render.layout import Table, Text
from fastslow.results.report.section import Records, Section

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


@dataclass(frozen=True, slots=True)
class Reflection(Section):
    """The sum over every fast phase that had a reflection LM."""

    account: ReflectionAccount | None
    """None without one."""

    chapter = "cost"

    @classmethod
    def compute(cls, records: Records) -> Self:
        """Sum up the metrics of the fast phases."""
        events = records.events_of(CycleEvent)
        phases = [event.metrics for event in events if f"{PREFIX}calls" in event.metrics]
        return cls(_account(phases) if phases else None)

    def to_json(self) -> Mapping[str, object]:
        """One key a field."""
        return {"reflection": self.account}

    def tables(self) -> Sequence[Table]:
        """One row."""
        rows = [_row(self.account)] if self.account else []
        return [
            Table(
                "Reflection LM",
                ("requests", "failed attempts", "prompt tokens", "answer tokens", "US dollars"),
                tuple(rows),
                "What the reflection LM was asked by the fast channel; none of it is a rollout of "
                "a task. Dollars by list prices; - is not known.",
            )
        ]


def _row(account: ReflectionAccount) -> tuple[Text, ...]:
    counts = (account.calls, account.failures, account.prompt_tokens, account.completion_tokens)
    return (
        *(Text("-" if count is None else str(count)) for count in counts),
        Text("-" if account.cost_usd is None else f"{account.cost_usd:.4f}"),
    )


def _account(phases: Sequence[Mapping[str, float | None]]) -> ReflectionAccount:
    def total(name: str) -> float | None:
        values = [metrics.get(PREFIX + name) for metrics in phases]
        numbers = [value for value in values if value is not None]
        return sum(numbers) if len(numbers) == len(values) else None

    def count(name: str) -> int | None:
        value = total(name)
        return None if value is None else int(value)

    return ReflectionAccount(
        calls=count("calls") or 0,
        failures=count("failures") or 0,
        prompt_tokens=count("prompt_tokens"),
        completion_tokens=count("completion_tokens"),
        cost_usd=total("cost_usd"),
        phases=len(phases),
        away=count("away") or 0,
    )
