"""`question_answering`: GSM8K, MATH, Polaris, SciKnowEval and TRACE formats, every grader."""

import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from fastslow.core.types import Example
from fastslow.task.contract import JUNK, contract_failures
from fastslow.task.definition import Task
from fastslow.task.guarded_grader import guard_graders
from tests.support.data import build, refusal, write_lines

GSM8K = [
    {"question": f"What is {n} + 1000?", "answer": f"Add.\n#### 1,{n:03}"} for n in range(3, 9)
]
POLARIS = [
    {"problem": rf"What is $\frac{{{n}}}{{7}}$ halved?", "answer": rf"\frac{{{n}}}{{14}}"}
    for n in range(3, 9)
]
MATH = [
    {"problem": f"Solve $x - {n} = 0$.", "solution": rf"So $x = {n}$ and \boxed{{x^{{{n}}}}}."}
    for n in range(3, 9)
]


def graded(task: Task, answer: str, text: str) -> float:
    return task.grade(Example("x", "?", answer), text).score


@pytest.mark.parametrize(
    ("rows", "columns", "gold"),
    [
        (GSM8K, {}, r"\boxed{1,005}"),
        (POLARIS, {"question_column": "problem"}, r"\boxed{\frac{5}{14}}"),
        (MATH, {"question_column": "problem", "answer_column": "solution"}, r"\boxed{x^{5}}"),
    ],
    ids=["gsm8k", "polaris", "math"],
)
def test_problems_of_mathematics_keep_the_promises_of_a_task(
    rows: list[dict[str, str]], columns: dict[str, str], gold: str, tmp_path: Path
) -> None:
    path = write_lines(tmp_path / "all.jsonl", rows)
    task = build("question_answering", path, grader="math", **columns)
    assert task.version == "question_answering@1+math"
    examples = [*task.train, *task.validation, *task.test]
    assert gold in {example.answer for example in examples}
    assert [task.grade(example, example.answer).score for example in examples] == [1] * 6
    assert [task.grade(examples[0], junk).score for junk in JUNK] == [0] * len(JUNK)


@pytest.fixture(scope="module")
def maths(tmp_path_factory: pytest.TempPathFactory) -> Task:
    path = write_lines(tmp_path_factory.mktemp("maths") / "all.jsonl", GSM8K)
    return build("question_answering", path, grader="math")


@pytest.mark.parametrize(
    ("gold", "text", "score"),
    [
        (r"\boxed{\frac{1}{2}}", r"So \boxed{0.5}", 1),
        (r"\boxed{\frac{1}{2}}", "1/2", 1),
        (r"\boxed{\frac{1}{2}}", r"first \boxed{3}, then \boxed{\dfrac{2}{4}}.", 1),
        (r"\boxed{(x+1)^2}", r"\boxed{x^2 + 2x + 1}", 1),
        (r"\boxed{1,005}", r"\boxed{1005}", 1),
        (r"\boxed{\{1, 2\}}", r"\boxed{\{2, 1\}}", 1),
        (r"\boxed{2\sqrt{3}}", r"\boxed{\sqrt{12}}", 1),
        (r"\boxed{2^{3^{4}}}", r"\boxed{2^{3^{4}}}", 1),
        (r"\boxed{\frac{1}{2}}", r"\boxed{\frac{1}{3}}", 0),
        (r"\boxed{x^2}", r"\boxed{x^3}", 0),
        (r"\boxed{5}", "I do not know.", 0),
        (r"\boxed{5}", r"\boxed{", 0),
        (r"\boxed{5}", r"\boxed{5} or \boxed{6}", 0),
    ],
)
def test_formulas_are_compared_as_mathematics(
    maths: Task, gold: str, text: str, score: float
) -> None:
    assert graded(maths, gold, text) == score


@pytest.mark.parametrize(
    ("gold", "text", "score"),
    [
        ("9.81", r"\boxed{9.8}", 1),
        ("9.81", r"\boxed{9.8\ \mathrm{m/s^2}}", 1),
        ("3.2e5", r"\boxed{3.2 \times 10^5}", 1),
        ("9.81", r"\boxed{9.4}", 0),
        ("9.81", r"\boxed{-9.81}", 0),
        (r"\frac{m v^2}{r}", r"\boxed{mv^2/r}", 1),
    ],
)
def test_physics_has_a_tolerance_and_units(
    gold: str, text: str, score: float, tmp_path: Path
) -> None:
    rows = [{"question": f"Problem {n}?", "answer": gold} for n in range(9)]
    path = write_lines(tmp_path / "all.jsonl", rows)
    task = build("question_answering", path, grader="math", tolerance=0.02)
    assert task.version == "question_answering@1+math+0.02"
    assert task.grade(task.test[0], task.test[0].answer).score == 1
    assert task.grade(task.test[0], text).score == score


@pytest.mark.parametrize(
    "text",
    [
        "9^{9^{9^{9}}}",
        "__import__('os').system('touch PWNED')",
        "x" * 100_000,
        "\\" * 200,
        "\x00\ud800\u202e",
    ],
    ids=lambda text: text[:12].encode("ascii", "replace").decode(),
)
def test_no_formula_hangs_or_runs(
    maths: Task, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    grade: Any = maths.grade
    monkeypatch.setitem(grade.func.__globals__, "COMPARING_S", 1)
    assert graded(maths, r"\boxed{5}", rf"\boxed{{{text}}}") == 0
    assert graded(maths, rf"\boxed{{{text}}}", rf"\boxed{{{text} }}") == 1
    assert list(tmp_path.iterdir()) == []


def test_formulas_are_graded_in_the_process_of_graders_and_in_any_thread(maths: Task) -> None:
    guarded = guard_graders({"maths": maths}, 60, 0.1)["maths"]
    grades = []
    thread = threading.Thread(target=lambda: grades.append(graded(guarded, r"\boxed{0.5}", "1/2")))
    thread.start()
    thread.join()
    direct = threading.Thread(target=lambda: grades.append(graded(maths, r"\boxed{0.5}", "1/2")))
    direct.start()
    direct.join()
    assert grades == [1, 1]


def test_options_are_put_behind_a_question_with_their_letters(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "question": f"Question {n}?",
            "choices": {"text": ["yes", "no"], "label": ["A", "B"]},
            "answerKey": "AB"[n % 2],
            "domain": "Physics" if n < 12 else "Biology",
            "details": {"level": "L3"},
        }
        for n in range(20)
    ]
    where = {"domain": "Physics", "details.level": "L3"}
    params = {"answer_column": "answerKey", "choices_column": "choices", "grader": "letter"}
    path = write_lines(tmp_path / "all.jsonl", rows)
    task = build("question_answering", path, where=where, **params)
    every = [*task.train, *task.validation, *task.test]
    assert {e.question for e in every} == {f"Question {n}?\nA. yes\nB. no" for n in range(12)}
    assert list(contract_failures(task)) == []
    rows[3] |= {"choices": ["only"], "answerKey": "no letter"}
    rows[4]["choices"] = {"text": ["yes"], "label": []}
    assert refusal("question_answering", write_lines(path, rows), **params) == [
        "DATA:4: column 'answerKey' should begin with the letter of an option, got 'no letter'. "
        "Correct the row, or take another grader.",
        "DATA:5: column 'choices' should hold a list of options, or lists `text` and `label` of "
        "equal length, got {'text': ['yes'], 'label': []}. Correct the row.",
    ]


@pytest.mark.parametrize(
    ("gold", "text", "score"),
    [
        ("B", "B", 1),
        ("B", "(B) because it fits", 1),
        ("B\nBecause of this.", "Answer: B", 1),
        ("B", r"A is wrong. The answer is B.", 1),
        ("B", r"The answer is a number, \boxed{B}", 1),
        ("B", "Blue", 0),
        ("B", "A or B", 0),
        ("B", "", 0),
    ],
)
def test_letters(gold: str, text: str, score: float, tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {n}", "answer": gold} for n in range(9)]
    path = write_lines(tmp_path / "train.json", rows)
    task = build("question_answering", path, question_column="prompt", grader="letter")
    assert task.grade(task.test[0], text).score == score


def test_texts_are_graded_by_their_likeness(tmp_path: Path) -> None:
    rows = [{"prompt": f"Sum up {n}", "answer": "the cat sat on the mat"} for n in range(9)]
    path = write_lines(tmp_path / "all.jsonl", rows)
    summary = build("question_answering", path, question_column="prompt", grader="rouge_l")
    assert summary.grade(summary.test[0], "The cat sat on the mat").score == 1
    # the, sat, on in order: recall 3/6, precision 3/4
    assert summary.grade(summary.test[0], "the dog sat on").score == pytest.approx(0.6)
    assert summary.grade(summary.test[0], "").score == 0
    code = build("question_answering", path, question_column="prompt", grader="edit_similarity")
    example = Example("x", "?", "return x + 1")
    assert code.grade(example, "return x + 1").score == 1
    assert code.grade(example, "return x - 1").score == pytest.approx(22 / 24)
    assert code.grade(example, "").score == 0


def test_bad_rows_and_long_questions_are_named(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"question": f"{n} " + "x" * 50, "answer": n} for n in range(9)]
    path = write_lines(tmp_path / "all.jsonl", rows)
    task = build("question_answering", path, max_chars=20)
    assert task.notes == ("9 questions cut to max_chars = 20 characters.",)
    rows[2]["answer"] = None
    rows[5]["question"] = ["a"]
    assert refusal("question_answering", write_lines(path, rows)) == [
        "DATA:3: column 'answer' should hold a text, got None. Remove the row, or name another "
        "answer_column.",
        "DATA:6: column 'question' should hold a text, got ['a']. Remove the row, or name another "
        "question_column.",
    ]


def test_without_math_verify_the_grader_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    (line,) = refusal("question_answering", tmp_path / "x.jsonl", grader="math")
    assert line.endswith("Install it with: pip install 'fastslow[math]'")


def test_a_process_that_holds_much_compares_formulas_too(maths: Task) -> None:
    """What memory an answer may take is counted from what the grading process has already."""
    import mmap

    with mmap.mmap(-1, 9 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
        assert (
            graded(
                maths,
                r"\boxed{\frac{x^2 + 2x + 1}{x + 1} + \sqrt{8}}",
                r"\boxed{x + 1 + 2\sqrt{2}}",
            )
            == 1
        )
