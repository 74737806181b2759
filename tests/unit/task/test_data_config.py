"""What tasks on data share: rows that count, splits of the hub, and a hub that does not answer."""

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from datasets.exceptions import DatasetNotFoundError

from fastslow.core.errors import ModelError, TaskError, UnreachableDataError, UnreachableModelError
from fastslow.policy.model_store import hub_unreachable
from fastslow.task.registry import build_task
from tests.support.data import build, give_from_hub, refusal, write_lines

ROWS = [
    {"text": f"text {n}", "label": "even" if n % 2 == 0 else "odd", "of": {"level": n % 4}}
    for n in range(40)
]


def test_where_keeps_the_rows_that_hold_a_value(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "all.jsonl", ROWS)
    task = build("text_classification", path, where={"of.level": [1, 2], "label": "odd"})
    texts = {example.question for example in (*task.train, *task.validation, *task.test)}
    assert texts == {f"text {n}" for n in range(40) if n % 4 == 1}
    assert task.notes[:2] == (
        "20 of 40 rows of train count by of.level.",
        "10 of 20 rows of train count by label.",
    )


def test_where_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "all.jsonl", ROWS)
    assert refusal("text_classification", path, where={"label": "evn"}) == [
        "where: no row of train has evn in column 'label'. Did you mean 'even'? Correct it."
    ]
    (line,) = refusal("text_classification", path, where={"lable": "even"})
    assert line.startswith("DATA:1: no column 'lable'. Did you mean 'label'? Set where")


def test_a_hub_dataset_of_one_split_is_cut_like_a_single_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = give_from_hub(monkeypatch, {"test": Dataset.from_list(ROWS)})
    params = {"data": "org/rows", "subset": "v2", "revision": "refs/convert/parquet"}
    task = build_task("rows", "text_classification", params)
    assert asked == [("org/rows", "v2", "refs/convert/parquet")]
    assert [len(task.train), len(task.validation), len(task.test)] == [28, 4, 8]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionError("no route"), UnreachableDataError),
        (OSError(""), UnreachableDataError),
        (DatasetNotFoundError("no such dataset"), TaskError),
        (ValueError("BuilderConfig 'x' not found"), TaskError),
    ],
)
def test_a_hub_that_does_not_answer_is_told_from_one_that_says_no(
    error: Exception, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    with pytest.raises(TaskError) as caught:
        build_task("rows", "text_classification", {"data": "org/rows"})
    assert type(caught.value) is kind
    assert type(error).__name__ in str(caught.value)


class Refused(Exception):
    def __init__(self, status_code: int) -> None:
        super().__init__("refused")
        self.response: Any = type("Response", (), {"status_code": status_code})


def test_a_model_that_the_hub_does_not_know_is_told_from_one_that_nobody_asked_for() -> None:
    kinds = [type(hub_unreachable("org/m", error)) for error in (Refused(404), Refused(401))]
    assert kinds == [ModelError, ModelError]
    kinds = [type(hub_unreachable("org/m", error)) for error in (Refused(503), OSError("no"))]
    assert kinds == [UnreachableModelError, UnreachableModelError]
