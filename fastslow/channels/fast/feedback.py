"""Feedback on completions for a reflection LM: successes and failures, each in its own form.

Pure functions on text. A success is a worked example, kept word for word; a failure is one line
with its cause and a fix (SkillRL, arXiv 2602.08234, treats the two differently). Quotations are
untrusted: characters without a glyph are escaped.
"""

from collections.abc import Callable, Mapping, Sequence

from fastslow.channels.fast.settings import ReflectionSettings
from fastslow.core.prompts import Demonstration
from fastslow.core.seeds import named_random
from fastslow.core.text import shorten, visible
from fastslow.core.types import FULL_MARKS, Anchor, Evidence, Example, Grade
from fastslow.task.definition import Task

QUOTED_CHARS = 160
"""Of a question, a completion or a reason, in a line."""


def feedback(example: Example, completion: str, grade: Grade) -> str:
    """Feedback on one completion, an untrusted text of the policy, in one line."""
    if grade.score >= FULL_MARKS:
        return f"Correct: {_quoted(completion)} is what is wanted. Keep what leads to it."
    return lesson(example, completion, grade)


def lesson(example: Example, completion: str, grade: Grade) -> str:
    """A failure in one line: the completion, the grader's cause, and the gold answer as the fix."""
    cause = shorten(" ".join(grade.reason.split()), QUOTED_CHARS)
    cause = cause if cause.endswith((".", "!", "?", "…")) else cause + "."
    return (
        f"{_quoted(completion)} scores {grade.score:.2f}. Cause: {cause} "
        f"Fix: for {_quoted(example.question)} write {_quoted(example.answer)}."
    )


def playbook(
    evidence: Sequence[Evidence],
    examples: Mapping[str, Example],
    *,
    items: int,
    tokens: int,
    count_tokens: Callable[[str], int],
) -> str:
    """Worked examples and lessons from graded completions, as a text for a reflection LM.

    Each question and each line occurs once, the earlier evidence first; that about other examples
    is left out. There are at most `items` worked examples, of `tokens` together, and as many
    lessons. A worked example that does not fit into the rest is passed over, never cut.
    """
    worked: dict[str, str] = {}
    lessons: dict[str, None] = {}
    budget = tokens
    for item in evidence:
        if (example := examples.get(item.example)) is None:
            continue
        if item.score < FULL_MARKS:
            if len(lessons) < items:
                grade = Grade(item.score, item.reason)
                lessons[f"- {lesson(example, item.completion, grade)}"] = None
        elif len(worked) < items and example.question not in worked:
            text = f"Question: {_lines(example.question)}\nAnswer: {_lines(item.completion)}"
            if (cost := count_tokens(text)) <= budget:
                worked[example.question] = text
                budget -= cost
    sections = []
    if worked:
        sections.append("Answers of this model that were right:\n" + "\n".join(worked.values()))
    if lessons:
        sections.append("Answers of this model that were wrong:\n" + "\n".join(lessons))
    return "\n\n".join(sections)


def _quoted(text: str) -> str:
    return f'"{shorten(text.strip(), QUOTED_CHARS)}"'


def _lines(text: str) -> str:
    """Word for word, line by line; only characters without a glyph are escaped."""
    return "\n".join(visible(line) for line in text.strip().split("\n"))


def correct_answers(task: Task, anchor: Anchor) -> list[Demonstration]:
    """The policy's correct answers in the anchor's evidence, as demonstrations, each once."""
    questions = unscored(task, anchor)
    answers = [
        Demonstration(questions[e.example].question, e.completion)
        for e in anchor.evidence
        if e.score >= FULL_MARKS and e.example in questions
    ]
    return list(dict.fromkeys(answers))


def evidence_playbook(
    task: Task,
    anchor: Anchor,
    seed: int,
    limits: ReflectionSettings,
    count_tokens: Callable[[str], int],
) -> str:
    """Some of the anchor's evidence, chosen by `seed`, as a text for a reflection LM."""
    evidence = list(anchor.evidence)
    named_random(seed, "playbook").shuffle(evidence)
    return playbook(
        evidence,
        unscored(task, anchor),
        items=limits.playbook_items,
        tokens=limits.playbook_tokens,
        count_tokens=count_tokens,
    )


def unscored(task: Task, anchor: Anchor) -> dict[str, Example]:
    """Training examples by id, but for those that prompts are scored on now.

    A prompt that shows their answers would be scored on answers it contains.
    """
    scored = {example.id for example in anchor.examples}
    return {example.id: example for example in task.train if example.id not in scored}
