"""A run grades guessing once, at its start, and warns as soon as answers become one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fastslow.core.types import SampleScore
from fastslow.measure.evaluator import Evaluator
from fastslow.records.events import GuessEvent
from fastslow.records.jsonl import read_events
from fastslow.results.report import build_report
from fastslow.results.report.verdict import verdict
from tests.support.runs import start

PARITY = (
    "stages=[{task: parity, cycles: 1}]",
    "tasks={parity: {use: 'tests.support.toy_tasks:parity'}}",
    "evaluation={test_examples: 8, validation_examples: 2, kl_examples: 0, curve_examples: 0}",
)


def test_guesses_are_recorded_once_and_a_collapse_is_said_while_the_run_goes_on(
    tmp_path: Path,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    score = Evaluator.score

    def constant(*args: Any, **options: Any) -> list[SampleScore]:
        samples = score(*args, **options)
        return [replace(sample, completion="\x1b[2JHigh.", score=0.0) for sample in samples]

    monkeypatch.setattr(Evaluator, "score", constant)
    run = start(tmp_path, [f"model.name={tiny_folder}", *PARITY])
    events = [e for e in read_events(run / "events.jsonl") if isinstance(e, GuessEvent)]
    assert [event.task for event in events] == ["parity", "first", "second"]
    guess = events[0].guess
    assert (guess.answer, guess.num_answers, guess.num_gold) == ("0!", 4, 4)
    assert (guess.constant_score, guess.uniform_score) == (1.0, 1.0)  # "0!" is even in length
    assert len(guess.constant) == 8
    output = "".join(capfd.readouterr())
    assert "warning: parity: 8 of 8 answers are '\\x1b[2jhigh' after stage 1" in output
    text = verdict(build_report(run))
    assert text.startswith("Learned 0 of 1 tasks beyond chance")
    assert "8 of 8 answers are '\\x1b[2jhigh' after stage 1 (a constant '0!'" in text
