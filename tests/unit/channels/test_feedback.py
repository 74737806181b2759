"""What a reflection LM is told: successes word for word, failures in one line."""

from fastslow.channels.fast.feedback import (
    correct_answers,
    evidence_playbook,
    feedback,
    lesson,
    playbook,
)
from fastslow.channels.fast.settings import ReflectionSettings
from fastslow.core.prompts import Demonstration
from fastslow.core.types import Anchor, Batch, Evidence, Example, Grade
from fastslow.task.definition import Task
from fastslow.task.graders import exact_match

EXAMPLES = {f"e{i}": Example(f"e{i}", f"capital of {i}?", f"city {i}") for i in range(9)}
RIGHT = [Evidence(f"e{i}", f"city {i}", 1.0, "correct") for i in range(9)]
WRONG = [Evidence(f"e{i}", f"town {i}", 0.0, "It is another.") for i in range(9)]


def words(text: str) -> int:
    return len(text.split())


def test_a_success_is_kept_and_a_failure_gets_cause_and_fix() -> None:
    example = EXAMPLES["e1"]
    right = feedback(example, "city 1", exact_match(example, "city 1"))
    assert right == 'Correct: "city 1" is what is wanted. Keep what leads to it.'
    wrong = feedback(example, "town", exact_match(example, "town"))
    assert wrong == (
        '"town" scores 0.00. Cause: The answer is "city 1", not "town". '
        'Fix: for "capital of 1?" write "city 1".'
    )


def test_a_partly_right_answer_is_a_lesson_with_its_score() -> None:
    assert "scores 0.50" in feedback(EXAMPLES["e1"], "city", Grade(0.5, "half of it"))


def test_a_lesson_is_one_printable_line_whatever_was_written() -> None:
    text = lesson(
        Example("e", "a\nb", "c\x1b[2J"), "x\x1b]0;t\x07\u202e\ny" * 200, Grade(0.0, "why\nnot")
    )
    assert text.isprintable()
    assert len(text) < 700
    assert "Cause: why not. Fix:" in text


def test_a_playbook_routes_by_score_and_has_at_most_so_many_of_each() -> None:
    text = playbook([*WRONG, *RIGHT], EXAMPLES, items=2, tokens=1000, count_tokens=words)
    assert text.splitlines() == [
        "Answers of this model that were right:",
        "Question: capital of 0?",
        "Answer: city 0",
        "Question: capital of 1?",
        "Answer: city 1",
        "",
        "Answers of this model that were wrong:",
        '- "town 0" scores 0.00. Cause: It is another. Fix: for "capital of 0?" write "city 0".',
        '- "town 1" scores 0.00. Cause: It is another. Fix: for "capital of 1?" write "city 1".',
    ]


def test_worked_examples_stay_within_their_tokens_and_are_never_cut() -> None:
    long = Example("long", "word " * 50, "city")
    found = [Evidence("long", "city", 1.0, "correct"), *RIGHT]
    text = playbook(found, EXAMPLES | {"long": long}, items=9, tokens=14, count_tokens=words)
    assert text.count("Question: ") == 2
    assert "word" not in text
    assert "capital of 1?\nAnswer: city 1" in text


def test_nothing_stands_in_a_playbook_twice() -> None:
    twice = [*RIGHT[:1] * 3, *WRONG[:1] * 3]
    text = playbook(twice, EXAMPLES, items=9, tokens=1000, count_tokens=words)
    assert text.count("Question: ") == 1
    assert text.count("scores") == 1


def test_a_worked_example_is_word_for_word_but_for_what_acts_on_a_terminal() -> None:
    example = Example("e", "line one\nline two", "x")
    found = [Evidence("e", "a\x1b[0mb", 1.0, "correct")]
    text = playbook(found, {"e": example}, items=1, tokens=99, count_tokens=words)
    assert "Question: line one\nline two\nAnswer: a\\x1b[0mb" in text


def test_evidence_about_other_examples_is_left_out() -> None:
    assert playbook(RIGHT, {}, items=3, tokens=99, count_tokens=words) == ""


def task_and_anchor(evidence: list[Evidence]) -> tuple[Task, Anchor]:
    """Texts are scored on e0; evidence is about any."""
    other = (Example("v", "v?", "v"),), (Example("t", "t?", "t"),)
    task = Task(tuple(EXAMPLES.values()), *other, "Answer.", exact_match, 4)
    return task, Anchor(0, 1, 2, (Batch((("t", EXAMPLES["e0"]),)),), (), tuple(evidence))


def test_correct_answers_are_reused_but_never_those_that_texts_are_scored_on() -> None:
    task, anchor = task_and_anchor([*RIGHT[:3], *RIGHT[:3], *WRONG])
    assert correct_answers(task, anchor) == [
        Demonstration("capital of 1?", "city 1"),
        Demonstration("capital of 2?", "city 2"),
    ]


def test_the_playbook_of_evidence_is_drawn_from_its_seed_and_hides_scored_answers() -> None:
    task, anchor = task_and_anchor([*RIGHT, *WRONG])

    def drawn(seed: int) -> str:
        limits = ReflectionSettings(playbook_items=2, playbook_tokens=99)
        return evidence_playbook(task, anchor, seed, limits, words)

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(5)}) > 1
    assert all("capital of 0?" not in drawn(seed) for seed in range(20))
