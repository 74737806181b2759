"""The loop writes the source of an example next to its score."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from fastslow.core.prompts import PromptProgram
from fastslow.core.types import Example, SampleScore
from fastslow.loop.evaluation import EvaluationCost, score_cell
from fastslow.records.events import ScoreRow


def test_a_score_row_names_the_cluster_of_its_example() -> None:
    examples = [Example("e1", "?", "!", cluster="page"), Example("e2", "?", "!")]
    program, rows = PromptProgram("Say it."), list[ScoreRow]()

    def score(*_: Any, examples: list[Example], **__: Any) -> list[SampleScore]:
        return [
            SampleScore("t", "t@1", e.id, 0, "live", program.text_hash, "w", "", 1, 1.0, "correct")
            for e in examples
        ]

    run: Any = SimpleNamespace(
        policy=SimpleNamespace(
            adapters=SimpleNamespace(serving=lambda _: nullcontext()),
            weights_fingerprint=lambda: "w",
        ),
        score_cache=SimpleNamespace(look_up=lambda *_: {}, add=lambda _: None),
        evaluator=SimpleNamespace(score=score),
        run_dir=SimpleNamespace(
            path=SimpleNamespace(name="run"),
            scores=SimpleNamespace(append=lambda *new: rows.extend(new)),
        ),
    )
    task: Any = SimpleNamespace(name="t")
    score_cell(run, EvaluationCost(), task, 1, "live", program, examples=examples)
    assert [(row.sample.example, row.cluster) for row in rows] == [("e1", "page"), ("e2", None)]
