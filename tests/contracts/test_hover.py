"""`hover` on files and hub splits as HoVer publishes them."""

from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from pydantic import ValidationError

from fastslow.core.types import Example
from fastslow.task.contract import contract_failures
from fastslow.task.registry import build_task
from tests.support.data import build, give_from_hub, refusal, write_lines
from tests.support.paths import ROOT

SAMPLE = ROOT / "tasks" / "hover" / "sample.jsonl"
LABELS = ["NOT_SUPPORTED", "SUPPORTED"]


def claims(size: int, start: int = 0, **values: Any) -> list[dict[str, Any]]:
    """Rows of the release on GitHub."""
    return [
        {
            "uid": f"u{n}",
            "claim": f"Claim {n}.",
            "supporting_facts": [[f"Article {n}", 0], ["Café (song)", 2], [f"Article {n}", 3]],
            "label": LABELS[n % 2],
            "num_hops": 2 + n % 3,
        }
        | values
        for n in range(start, start + size)
    ]


def test_claims_of_some_hops_are_answered_by_their_label(tmp_path: Path) -> None:
    write_lines(tmp_path / "train.jsonl", claims(30))
    write_lines(tmp_path / "test.jsonl", claims(12, 30))
    task = build("hover", tmp_path, where={"num_hops": [3, 4]}, options="listed", grader="mention")
    assert task.version == "hover@1+listed+mention"
    assert task.instruction.endswith("Options: NOT_SUPPORTED, SUPPORTED.")
    assert {e.question: e.answer for e in task.test} == {
        f"Claim {n}.": LABELS[n % 2] for n in range(30, 42) if n % 3
    }
    supported = next(e for e in task.test if e.answer == "SUPPORTED")
    assert task.grade(supported, "It is supported.").score == 1
    assert task.grade(supported, "It is NOT_SUPPORTED.").score == 0


def test_the_articles_of_a_claim_can_be_asked_for() -> None:
    task = build("hover", SAMPLE, ask="articles", max_tokens=64)
    assert task.version == "hover@1+articles"
    assert list(contract_failures(task)) == []
    example = Example("x", "?", "Café (song)\nSeine")
    for text in ("- seine\n- Café (Song)", "1. Cafe\u0301 (song)\n2. Paris\n3. Seine."):
        assert task.grade(example, text).score == 1
    grade = task.grade(example, "Seine, Café (song)")
    assert grade.score == 0
    assert grade.reason.startswith("0 of 2 articles are named, each title on a line of its own")
    flood = "\n".join(f"Article {n}" for n in range(10))
    assert task.grade(example, f"{flood}\nSeine\nCafé (song)").score == 0
    with pytest.raises(ValidationError, match="options and grader are about labels"):
        build("hover", SAMPLE, ask="articles", grader="mention")


def test_the_hub_has_codes_for_labels_and_a_test_split_without_any(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features = Features(
        claim=Value("string"),
        supporting_facts=[{"key": Value("string"), "value": Value("int32")}],
        label=ClassLabel(names=LABELS),
        num_hops=Value("int32"),
    )

    def split(size: int, start: int, label: int | None) -> Dataset:
        rows = [
            {
                "claim": f"Claim {n}.",
                "supporting_facts": [{"key": f"Article {n}", "value": 0}] if label is None else [],
                "label": n % 2 if label is None else label,
                "num_hops": 3 if label is None else -1,
            }
            for n in range(start, start + size)
        ]
        return Dataset.from_list(rows, features=features)

    splits = {
        "train": split(20, 0, None),
        "validation": split(6, 20, None),
        "test": split(5, 26, -1),
    }
    give_from_hub(monkeypatch, splits)
    params = {"data": "hover-nlp/hover", "where": {"num_hops": [3, 4]}}
    task = build_task("hover", None, params)
    assert sorted(e.question for e in task.test) == [f"Claim {n}." for n in range(20, 26)]
    assert len(task.validation) == 2
    assert task.notes == (
        "the test split has no labels: the validation split is tested on in its place.",
    )
    named = build_task("hover", None, {**params, "ask": "articles"}).test[0]
    assert named.answer == f"Article {named.question[6:-1]}"


def test_bad_rows_are_named_with_their_lines(tmp_path: Path) -> None:
    rows = claims(8)
    rows[1]["label"] = "REFUTED"
    rows[3] = {"text": "no claim"}
    rows[4]["claim"] = " "
    path = write_lines(tmp_path / "all.jsonl", rows)
    assert refusal("hover", path) == [
        "DATA:2: column 'label' should hold NOT_SUPPORTED or SUPPORTED, got 'REFUTED'. Correct the "
        "row, or remove it.",
        "DATA:4: no column 'claim'. Known: text. Set data, or add the column.",
        "DATA:5: column 'claim' should hold a text, got ' '. Remove the row.",
    ]
    rows = claims(8)
    rows[2]["supporting_facts"] = []
    (line,) = refusal("hover", write_lines(path, rows), ask="articles")
    assert line.startswith("DATA:3: column 'supporting_facts' should hold pairs of a title")
