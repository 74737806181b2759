"""The remaining time a run shows, tried on the times that kept runs took."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from fastslow.config.cost import REFERENCE
from fastslow.config.ledger import Ledger
from fastslow.config.lengths import task_lengths
from fastslow.config.loading.load import load_resolved
from fastslow.config.price import Price
from fastslow.core import progress
from fastslow.core.progress import Progress
from fastslow.loop.launch import TRUST_FRAC, TRUST_S
from fastslow.records.events import CycleEvent, EvaluationEvent, TextEvent
from fastslow.records.jsonl import read_events
from fastslow.task.registry import build_task
from tests.support.paths import ROOT

Part = tuple[str, int, float]
"""Name, row, and the seconds that it took."""


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def price_of(name: str) -> Price:
    """Without rates measured here: the estimate at its worst."""
    loaded = load_resolved(ROOT / "runs" / "reference" / name / "config.json")
    config = loaded.config.model_copy(update={"probe": None})
    uses = {name: config.task_use(name) for name in config.task_names}
    tasks = {name: build_task(name, use.use, use.params) for name, use in uses.items()}
    lengths = task_lengths(tasks, lambda text: len(text) // 4 + 1)
    return Price(Ledger(config, tasks), lengths, REFERENCE)


def parts_of(name: str) -> Iterator[Part]:
    for event in read_events(ROOT / "runs" / "reference" / name / "events.jsonl"):
        if isinstance(event, EvaluationEvent):
            yield event.part, event.row, event.seconds
        elif isinstance(event, CycleEvent):
            (channel, seconds), *_ = event.seconds.items()
            yield channel, event.stage + 1, seconds
        elif isinstance(event, TextEvent) and event.seconds:
            yield "choice", event.stage + 1, event.seconds


def errors(
    parts: list[Part], estimates: list[float], ahead_s: float, monkeypatch: pytest.MonkeyPatch
) -> list[float]:
    """After every part that ends a minute or more into the run, and a minute before its end.

    Each is what the progress line says remains, by what does remain. Without the trust in what was
    estimated the line would be the old one.
    """
    clock: Any = Clock()
    monkeypatch.setattr(progress, "time", clock)
    shown = Progress(ahead_s, Console(file=io.StringIO()), min(TRUST_S, TRUST_FRAC * ahead_s))
    true_s = sum(seconds for *_, seconds in parts)
    ratios = []
    for (*_, seconds), estimate in zip(parts, estimates, strict=True):
        clock.now += seconds
        shown.finish(estimate)
        remaining = shown.remaining_s(0.0)
        assert remaining is not None
        if 60 <= clock.now <= true_s - 60:
            ratios.append(remaining / (true_s - clock.now))
    return ratios


@pytest.mark.parametrize("name", ["demo", "planted-gentle"])
def test_after_a_minute_it_is_right_within_a_factor_of_two(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    price, parts = price_of(name), list(parts_of(name))
    estimates = [price.seconds(price.ledger.entry(part, row)) for part, row, _ in parts]
    ratios = errors(parts, estimates, price.remaining_s(False, 0, 0), monkeypatch)
    assert len(ratios) > 5
    assert 0.5 <= min(ratios) <= max(ratios) <= 2


def test_a_start_that_takes_four_times_as_long_does_not_set_the_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What comes first has caches to fill and libraries to load."""
    parts = list(parts_of("demo"))
    estimates = [seconds for *_, seconds in parts]
    name, row, seconds = parts[0]
    slow_start = [(name, row, 4 * seconds), *parts[1:]]
    ratios = errors(slow_start, estimates, sum(estimates), monkeypatch)
    assert len(ratios) > 5
    assert 0.5 <= min(ratios) <= max(ratios) <= 2
    monkeypatch.setattr("tests.unit.loop.test_remaining_time.TRUST_FRAC", 0.0)
    assert max(errors(slow_start, estimates, sum(estimates), monkeypatch)) > 3


def test_a_machine_three_times_as_slow_is_noticed_within_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = list(parts_of("demo"))
    estimates = [seconds / 3 for *_, seconds in parts]
    ratios = errors(parts, estimates, sum(estimates), monkeypatch)
    assert 0.5 <= min(ratios) <= max(ratios) <= 2
