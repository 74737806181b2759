"""`code_io` on rows as CodeIO-PyEdu-Reasoning-Raw has them, graded in the real sandbox."""

import json
from pathlib import Path
from typing import Any

import pytest

from fastslow.core.types import Example
from fastslow.task.definition import Task
from fastslow.task.sandbox.run import why_unavailable
from tests.support.data import build, refusal, write_lines
from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))
SAMPLE = ROOT / "tasks" / "code_io" / "sample.jsonl"
SQUARE = "print('loud')\n\n\ndef square(n):\n    print('louder')\n    return n * n"


def row(number: int, **values: Any) -> dict[str, Any]:
    return {
        "problem_description": f"What is the square of n, of kind {number}?",
        "io_requirements": "Input: n (int). Output: int.",
        "refcode": f"{SQUARE} + {number}",
        "funcname": "square",
        "ios": [{"input": {"n": n}, "output": n * n + number} for n in (2, -2, 3)],
        "source": "x",
        "category": "x",
        "meta": {},
    } | values


def examples(task: Task) -> list[Example]:
    return [*task.train, *task.validation, *task.test]


def one(task: Task, predict: str) -> Example:
    return next(e for e in examples(task) if e.metadata["predict"] == predict)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Task:
    rows = [row(number) for number in range(8)]
    return build("code_io", write_lines(tmp_path_factory.mktemp("code") / "all.jsonl", rows))


def test_programs_and_not_calls_are_parted_into_splits(squares: Task) -> None:
    clusters = [{e.cluster for e in s} for s in (squares.train, squares.validation, squares.test)]
    assert [len(names) for names in clusters] == [5, 1, 2]
    assert len(set.union(*clusters)) == 8
    # of the first two calls both inputs give the same output, so one question for it is enough
    asked = [e.metadata["predict"] for e in squares.validation]
    assert asked == ["output", "input", "output"]


def test_outputs_are_compared_as_json(squares: Task) -> None:
    example = one(squares, "output")
    gold = json.loads(example.answer)["output"]
    assert squares.grade(example, f'So it is\n```json\n{{ "output": {gold} }}\n```').score == 1
    assert squares.grade(example, f'{{"output": {gold}.0}}').score == 1
    assert squares.grade(example, f'{{"output": {gold + 1}}}').reason == (
        f'The output is "{gold}", not "{gold + 1}".'
    )
    for text in (f'{{"output": "{gold}"}}', f"{gold}", '{"output": ' * 3000, '{"output": NaN}'):
        assert squares.grade(example, text).score == 0


def test_any_input_that_gives_the_output_is_right(squares: Task) -> None:
    example = one(squares, "input")
    number = json.loads(example.answer)["input"]["n"]
    assert squares.grade(example, json.dumps({"input": {"n": -number}})).score == 1
    wrong = squares.grade(example, json.dumps({"input": {"n": 11}}))
    assert wrong.score == 0
    assert wrong.reason.startswith("The program, given that input, returns")
    assert "ended by an error: TypeError" in squares.grade(example, '{"input": {"m": 1}}').reason
    assert squares.grade(example, '{"input": 2}').reason.startswith("The input is an object")


def test_an_input_is_data_and_never_code(tmp_path: Path) -> None:
    leak = "def echo(text):\n    print(text, flush=True)\n    return len(text)"
    rows = [
        row(
            n,
            refcode=f"{leak} + {n}",
            funcname="echo",
            ios=[{"input": {"text": "ab"}, "output": 2 + n}],
        )
        for n in range(6)
    ]
    task = build("code_io", write_lines(tmp_path / "all.jsonl", rows), predict="input")
    assert task.version == "code_io@1+input"
    example = one(task, "input")
    for text in (
        str(example.metadata["expected"]),
        f"{example.metadata['expected']}\n",
        "'); 1/0; ('",
    ):
        expected = len(text) == len("ab")
        assert task.grade(example, json.dumps({"input": {"text": text}})).score == expected


def test_what_cannot_be_asked_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = [row(number) for number in range(6)]
    rows += [row(6, ios=[]), row(7, refcode=f"import numpy\n{SQUARE}"), row(8, refcode="def f(:")]
    rows += [row(9, problem_description="x" * 5000)]
    path = write_lines(tmp_path / "all.jsonl", rows)
    assert build("code_io", path).notes[0].startswith("4 of 10 programs of train left out: no call")
    assert build("code_io", path, predict="output").notes[0].startswith("2 of 10 programs")


def test_bad_rows_are_named_with_their_lines(tmp_path: Path) -> None:
    rows = [row(number) for number in range(6)]
    rows[1]["funcname"] = "os.system"
    rows[2]["ios"] = [{"input": [1], "output": 1}]
    rows[3]["ios"] = [{"input": '{"n": 1', "output": "1"}]
    del rows[4]["refcode"]
    lines = refusal("code_io", write_lines(tmp_path / "all.jsonl", rows))
    assert [line.split(":")[1] for line in lines] == ["2", "3", "4", "5"]
    assert lines[0].startswith("DATA:2: 'funcname' should be the name of a function")
    assert "each of 'ios' should hold an 'input', an object with the arguments" in lines[1]
    assert lines[3].startswith("DATA:5: no column 'refcode'.")


def test_calls_may_be_texts_that_hold_json(tmp_path: Path) -> None:
    rows = [row(n, ios=[{"input": '{"n": 2}', "output": str(4 + n)}]) for n in range(6)]
    task = build("code_io", write_lines(tmp_path / "all.jsonl", rows))
    assert json.loads(one(task, "input").answer) == {"input": {"n": 2}}
    assert one(task, "output").question.endswith('Input of square: {"n": 2}\nWhat is the output?')


def test_the_sample_is_right_about_what_its_programs_return() -> None:
    task = build("code_io", SAMPLE, predict="input")
    for example in task.test:
        swapped = json.dumps({"input": {**json.loads(example.answer)["input"]}}, indent=1)
        assert task.grade(example, swapped).score == 1
