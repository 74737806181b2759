"""Rollouts of the slow phase before, as evidence for a fast phase; none is drawn again.

An ablation: Fast-Slow Training draws both phases' rollouts anew. The loop hands the evidence over
with the anchor, and only when `fast.reuse_slow_rollouts` says so.
"""

from collections.abc import Callable

from fastslow.channels.feedback import FULL_MARKS, playbook
from fastslow.prompts import Demonstration
from fastslow.seeds import named_random
from fastslow.task import Task
from fastslow.types import Anchor, Evidence, Example


def correct_answers(task: Task, anchor: Anchor) -> list[Demonstration]:
    """The policy's correct answers in the anchor's evidence, as demonstrations, each once."""
    questions = unscored(task, anchor)
    found = [
        Demonstration(questions[e.example].question, e.completion)
        for e in anchor.evidence
        if e.score >= FULL_MARKS and e.example in questions
    ]
    return list(dict.fromkeys(found))


def evidence_playbook(
    task: Task,
    anchor: Anchor,
    seed: int,
    *,
    items: int,
    tokens: int,
    count_tokens: Callable[[str], int],
) -> str:
    """Some of the anchor's evidence as a text for a reflection LM; see `feedback.playbook`.

    Args:
        task: Gives the questions.
        anchor: Gives the evidence.
        seed: Of the choice.
        items: Most worked examples, and most lessons.
        tokens: Limit of all worked examples together.
        count_tokens: Length of a text in tokens.
    """
    evidence: list[Evidence] = list(anchor.evidence)
    named_random(seed, "playbook").shuffle(evidence)
    return playbook(
        evidence, unscored(task, anchor), items=items, tokens=tokens, count_tokens=count_tokens
    )


def unscored(task: Task, anchor: Anchor) -> dict[str, Example]:
    """Training examples by id, but for those that texts are scored on now.

    A text that shows their answers would be scored on what it was told.
    """
    scored = {example.id for example in anchor.examples}
    return {example.id: example for example in task.train if example.id not in scored}
