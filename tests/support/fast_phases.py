"""Runs on the tiny model with optimizers of prompts, and signals at moments of their phases."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from fastslow.channels.fast.completion_cache import CompletionCache
from fastslow.channels.fast.reflection.own_base import OwnBase
from fastslow.loop import launch
from fastslow.loop.signals import Stopped
from tests.support.runs import newest, no_report, outcome, start

RUN = """
name: stopped
stages: [{task: first, cycles: 2}, {task: second, cycles: 1}]
tasks:
  first: {use: "tests.support.toy_tasks:parity"}
  second: {use: "tests.support.toy_tasks:letters"}
cycle: {optimizer_steps: 1, problems: 2, pool: 8}
fast: FAST
slow: {kind: grpo, group: 4, lr: 0.02}
evaluation: {test_examples: 2, validation_examples: 2, kl_examples: 0, curve_examples: 0,
  neutral: false, geometry: false, proxies: false}
tracking: null
"""
OWN = "reflection: {model: self, max_tokens: 8}"
FAST = {
    "demos": "{kind: demos, population: 2, demonstrations: 2, metric_calls: 24, threads: 4}",
    "gepa": f"{{kind: gepa, population: 2, minibatch: 2, metric_calls: 40, threads: 4, {OWN}}}",
    "simba": f"{{kind: simba, population: 2, batch: 4, candidates: 2, demonstrations: 2, "
    f"metric_calls: 80, threads: 4, {OWN}}}",
}
"""The fast channel's section, by optimizer."""


@contextmanager
def before_draw(number: int, action: Any) -> Iterator[list[int]]:
    """Within it `action` is called before the draw of this number in fast phases, from 1.

    Draws are batches of the policy and requests to the reflection model; gives a list of all.
    """
    numbers, draws = count(1), list[int]()

    def watched(inner: Any) -> Any:
        def draw(*args: Any, **kwargs: Any) -> Any:
            draws.append(present := next(numbers))
            if present == number:
                action()
            return inner(*args, **kwargs)

        return draw

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CompletionCache, "sample", watched(CompletionCache.sample))
        patch.setattr(OwnBase, "complete", watched(OwnBase.complete))
        yield draws


def interrupt() -> None:
    """Have this process get what Ctrl-C sends."""
    os.kill(os.getpid(), signal.SIGINT)


def whole_run(folder: Path, optimizer: str, model: Path) -> tuple[dict[str, Any], int]:
    """What a run leaves behind that nothing stopped, and its number of draws in fast phases."""
    with before_draw(0, None) as draws:
        run = start(folder, [f"model.name={model}"], RUN.replace("FAST", FAST[optimizer]))
    return outcome(run), len(draws)


def stopped_and_resumed(folder: Path, optimizer: str, model: Path, draw: int) -> dict[str, Any]:
    """The same of a run that Ctrl-C stopped before a draw, and that was resumed."""
    # a shell that started the tests in the background has them ignore it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with before_draw(draw, interrupt), pytest.raises(Stopped) as stop:
            start(folder, [f"model.name={model}"], RUN.replace("FAST", FAST[optimizer]))
    finally:
        signal.signal(signal.SIGINT, before)
    run = newest(folder)
    assert stop.value.exit_code == 130
    assert stop.value.__notes__ == [f"fastslow resume {run}"]
    assert '"state": "interrupted"' in (run / "run.json").read_text()
    return outcome(launch.resume(run, no_report))
