"""What a reflection LM is told about completions: successes and failures, each in its own form.

Pure functions on text. A success is a worked example, kept word for word; a failure is one line
with its cause and a fix (SkillRL, arXiv 2602.08234, treats the two differently). What they quote is
untrusted: characters without a glyph are escaped.
"""

from collections.abc import Callable, Mapping, Sequence

from fastslow.text import shorten, visible
from fastslow.types import Evidence, Example, Grade

FULL_MARKS = 1.0 - 1e-9
"""Scores from here on are a success; below there is something to learn."""
QUOTED_CHARS = 160
"""Of a question, a completion or a reason, in a line."""


def feedback(example: Example, completion: str, grade: Grade) -> str:
    """What stands beside a completion in the data a reflection LM reads, in one line.

    Args:
        example: What was asked.
        completion: What the policy wrote; untrusted.
        grade: The grader's score and sentence.
    """
    if grade.score >= FULL_MARKS:
        return f"Correct: {_quoted(completion)} is what is wanted. Keep what leads to it."
    return lesson(example, completion, grade)


def lesson(example: Example, completion: str, grade: Grade) -> str:
    """A failure in one line: what was written, the grader's cause, and the fix.

    Args:
        example: What was asked; its gold answer is the fix.
        completion: What the policy wrote; untrusted.
        grade: The grader's score, below full marks, and sentence.
    """
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

    Each question and each line stands in it once. A worked example that does not fit into what is
    left of the budget is passed over, never cut.

    Args:
        evidence: Graded completions, the more telling ones first.
        examples: What was asked, by id; evidence about others is left out.
        items: Most worked examples, and most lessons.
        tokens: Limit of all worked examples together.
        count_tokens: Length of a text in tokens.

    Returns:
        Several lines; empty when there is nothing to show.
    """
    worked: dict[str, str] = {}
    lessons: dict[str, None] = {}
    left = tokens
    for found in evidence:
        if (example := examples.get(found.example)) is None:
            continue
        grade = Grade(found.score, found.reason)
        if found.score < FULL_MARKS:
            if len(lessons) < items:
                lessons[f"- {lesson(example, found.completion, grade)}"] = None
        elif len(worked) < items and example.question not in worked:
            shown = f"Question: {_lines(example.question)}\nAnswer: {_lines(found.completion)}"
            if (cost := count_tokens(shown)) <= left:
                worked[example.question] = shown
                left -= cost
    parts = []
    if worked:
        parts.append("Answers of this model that were right:\n" + "\n".join(worked.values()))
    if lessons:
        parts.append("Answers of this model that were wrong:\n" + "\n".join(lessons))
    return "\n\n".join(parts)


def _quoted(text: str) -> str:
    return f'"{shorten(text.strip(), QUOTED_CHARS)}"'


def _lines(text: str) -> str:
    """Word for word, line by line; only characters without a glyph are escaped."""
    return "\n".join(visible(line) for line in text.strip().split("\n"))
