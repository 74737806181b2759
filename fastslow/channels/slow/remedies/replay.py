"""Replay: right answers of earlier tasks are learned again with the present task's problems.

Own answers, drawn by the policy when its stage ended, keep it near what it was (arXiv 2510.18874,
2403.01244); gold answers are the usual rehearsal. Training examples only.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from fastslow.channels.slow.remedies.base import (
    Ended,
    EndReport,
    Memory,
    Remedy,
    RemedyConfig,
    TaughtRow,
    Update,
    remedy,
)
from fastslow.core.distributed import by_leader
from fastslow.core.keys import OURS, key
from fastslow.core.seeds import derive_seed, named_random
from fastslow.core.types import FULL_MARKS, Sampling, TokenIds


class ReplayConfig(RemedyConfig):
    """Right answers of earlier tasks learned again in every update."""

    kind: Literal["replay"] = key("replay", "name", "rehearsal; arXiv 2510.18874 for own answers")
    """Which remedy."""
    target: Literal["own", "gold"] = key("own", "name", "own answers: arXiv 2403.01244")
    """What is learned again: right rollouts drawn at the end of a task's stage, or gold answers."""
    rows: PositiveInt = key(8, "rows per update", "ours: as many as the default problems")
    """Rows added to every update, over all earlier tasks."""
    keep: PositiveInt = key(32, "training examples per task", OURS)
    """Examples of a task that are tried when its stage ends."""
    strength: PositiveFloat = key(1.0, "weight", OURS)
    """Weight of the added loss, a mean in nats per token."""


@remedy(name="replay", source="rehearsal; own answers after arXiv 2510.18874 and 2403.01244")
def replay(config: ReplayConfig) -> Remedy:
    """Learns right answers of earlier tasks again, each under its task's deployed text."""

    def rows(update: Update, memory: Memory) -> Sequence[TaughtRow]:
        stage, renderer = update.stage, update.stage.policy.renderer
        answers = [
            (task, example, tuple(tokens))
            for task in stage.earlier
            for example, tokens in memory.facts.get(task.name, {}).items()
        ]
        size = min(config.rows, len(answers))
        chosen = named_random(update.seed, "rows").sample(answers, size)
        questions = {
            task.name: {example.id: example.question for example in task.train}
            for task in stage.earlier
        }
        return [
            TaughtRow(
                renderer.prompt_ids(stage.policy.live_program(task), questions[task.name][example]),
                tokens,
            )
            for task, example, tokens in chosen
        ]

    def end(ended: Ended, memory: Memory) -> EndReport:
        stage = ended.stage
        answers = by_leader(lambda: right_answers(ended, config))
        memory.facts[stage.task.name] = {
            example: list(tokens) for example, tokens in answers.items()
        }
        figures = {
            "tried": float(min(config.keep, len(stage.task.train))),
            "kept": float(len(answers)),
        }
        note = f"replay: no right answer of {stage.task.name} was drawn, so none will be replayed."
        return EndReport(figures, () if answers else (note,))

    return Remedy(rows=rows, end=end, strength=config.strength)


def right_answers(ended: Ended, config: ReplayConfig) -> dict[str, TokenIds]:
    """Token ids of right answers to some training examples of the stage's task, by example.

    `own`: one rollout each at temperature 1 under the deployed text, kept if it has full marks.
    """
    stage = ended.stage
    task, policy = stage.task, stage.policy
    size = min(config.keep, len(task.train))
    examples = named_random(stage.seed, "examples").sample(list(task.train), size)
    if config.target == "gold":
        return {e.id: policy.renderer.answer_ids(e.answer) for e in examples}
    program = policy.live_program(task)
    completions = policy.complete(
        [(program, example) for example in examples],
        Sampling(task.max_tokens, temperature=1.0),
        [derive_seed(stage.seed, "answer", example.id) for example in examples],
    )
    return {
        example.id: completion.token_ids
        for example, completion in zip(examples, completions, strict=True)
        if task.grade(example, completion.text).score >= FULL_MARKS
    }
