"""Replay: answers of earlier tasks are learned again with the present task's problems.

Own right answers, drawn by the policy when its stage ended, keep it near what it was (arXiv
2510.18874, 2403.01244); gold answers are the usual rehearsal; own answers under the teacher the
stage began with are dark experience replay (arXiv 2004.07211). Training examples only.
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
    RemedyPrice,
    StageSize,
    TaughtRow,
    Teacher,
    Update,
    remedy,
)
from fastslow.channels.slow.remedies.own_completions import (
    earlier_rows,
    own_completions,
    some_examples,
)
from fastslow.core.keys import OURS, key
from fastslow.core.seeds import named_random
from fastslow.core.types import FULL_MARKS, TokenIds


class ReplayConfig(RemedyConfig):
    """Answers of earlier tasks learned again in every update."""

    kind: Literal["replay"] = key("replay", "name", "rehearsal; arXiv 2510.18874 for own answers")
    """Which remedy."""
    target: Literal["own", "gold", "start"] = key("own", "name", "own answers: arXiv 2403.01244")
    """What is learned again: right rollouts drawn at the end of a task's stage; gold answers; or
    rollouts right or not, by what the policy predicted along them when the present stage began."""
    rows: PositiveInt = key(8, "rows per update", "ours: as many as the default problems")
    """Rows added to every update, over all earlier tasks."""
    keep: PositiveInt = key(32, "training examples per task", OURS)
    """Examples of a task that are tried when its stage ends."""
    strength: PositiveFloat = key(1.0, "weight", OURS)
    """Weight of the added loss, a mean in nats per token."""

    def price(self, stage: StageSize) -> RemedyPrice:
        """Rows of every update, and a rollout for each example that is tried."""
        return RemedyPrice(
            rows=self.rows if stage.earlier else 0,
            rollouts=0 if self.target == "gold" else self.keep,
        )


@remedy(name="replay", source="rehearsal; own answers after arXiv 2510.18874 and 2403.01244")
def replay(config: ReplayConfig) -> Remedy:
    """Learns answers of earlier tasks again, each under its task's deployed text."""

    def rows(update: Update, memory: Memory) -> Sequence[TaughtRow]:
        random = named_random(update.seed, "rows")
        result = []
        for prompt, tokens in earlier_rows(update.stage, memory.facts, config.rows, random):
            teacher = Teacher("start", prompt, "forward") if config.target == "start" else None
            result.append(TaughtRow(prompt, tokens, teacher=teacher))
        return result

    def end(ended: Ended, memory: Memory) -> EndReport:
        stage = ended.stage
        answers = replayed_answers(ended, config)
        memory.facts[stage.task.name] = {
            example: list(tokens) for example, tokens in answers.items()
        }
        figures = {
            "tried": float(min(config.keep, len(stage.task.train))),
            "kept": float(len(answers)),
        }
        note = f"replay: no right answer of {stage.task.name} was drawn, so none will be replayed."
        return EndReport(figures, () if answers else (note,))

    return Remedy(
        rows=rows, end=end, strength=config.strength, needs_start=config.target == "start"
    )


def replayed_answers(ended: Ended, config: ReplayConfig) -> dict[str, TokenIds]:
    """Token ids of the answers to keep of the stage's task, by training example.

    `own`: those of one rollout each that have full marks; `start`: all of them.
    """
    task, renderer = ended.stage.task, ended.stage.policy.renderer
    if config.target == "gold":
        examples = some_examples(ended.stage, config.keep)
        return {e.id: renderer.answer_ids(e.answer) for e in examples}
    return {
        example.id: completion.token_ids
        for example, completion in own_completions(ended.stage, config.keep)
        if config.target == "start" or task.grade(example, completion.text).score >= FULL_MARKS
    }
