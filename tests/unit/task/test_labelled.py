"""Labels are made alike, and everything that is odd about them is said once, with its place."""

import unicodedata
from collections.abc import Mapping
from typing import Any

import pytest

from fastslow.core.errors import TaskError
from fastslow.task.labelled import (
    LabelColumns,
    Labelled,
    class_notes,
    read_labelled,
    without_copies,
)
from fastslow.task.problems import MAX_PROBLEMS
from fastslow.task.table_files import Row, Table

CAFE = "café"
NFD = unicodedata.normalize("NFD", CAFE)


def table(*labels: object, split: str = "train") -> Table:
    return Table(
        [
            Row(f"{split}.csv:{n}", {"text": f"{split} {n}", "label": v})
            for n, v in enumerate(labels, 2)
        ]
    )


def read(*labels: object, **columns: Any) -> tuple[list[str], list[str]]:
    items, notes = read_labelled({"train": table(*labels)}, LabelColumns(**columns))
    return [item.label for item in items["train"]], notes


def refusal(*labels: object, known: list[str] | None = None, **columns: Any) -> list[str]:
    with pytest.raises(TaskError) as caught:
        read_labelled({"train": table(*labels)}, LabelColumns(**columns), known)
    return str(caught.value).split("\n")


@pytest.mark.parametrize(
    ("raw", "label", "words"),
    [
        (["bad", CAFE, NFD], ["bad", CAFE, CAFE], "in another Unicode form (not NFC) in 1 row and"),
        (["a  b", "a b", "a\u00a0b"], ["a b"] * 3, "with other white space in 1 row and read as"),
        (["Good", "good", "good"], ["Good", "good", "good"], "2 labels differ in capitals alone"),
        (["STRASSE", "straße"], ["STRASSE", "straße"], "2 labels differ in capitals alone"),
        (["good", "good "], ["good", "good"], None),
        ([0.0, 1.0, 0.0], ["0", "1", "0"], None),
        ([0.5, 1, True], ["0.5", "1", "True"], None),
    ],
)
def test_spellings_of_a_label_are_one_class_and_said(
    raw: list[object], label: list[str], words: str | None
) -> None:
    labels, notes = read(*raw)
    assert labels == label
    if words is None:
        assert notes == []
    else:
        assert words in notes[0]
        assert "train.csv:" in notes[0]


def test_codes_of_a_float_column_take_the_names_of_whole_numbers() -> None:
    names: Mapping[str | int, str] = {0: "negative", "1": "positive"}
    assert read(0.0, 1.0, names=names)[0] == ["negative", "positive"]


def test_a_name_for_no_label_is_refused_with_the_nearest() -> None:
    [line] = refusal("neg", "pos", names={"negg": "negative"})
    assert line == "label_names: no row has the label 'negg'. Did you mean 'neg'? Correct it."


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (["negative"], "should hold one label as text or number, got a list: ['negative']"),
        ({"name": "negative", "id": 0}, "Name one of its fields: label_column: label.name"),
        ({"value": "x"}, "Name one of its fields: label_column: label.value"),
        (float("nan"), "holds no label, got nan"),
        (b"x", "should hold one label as text or number, got a bytes"),
    ],
)
def test_what_is_not_a_label_is_refused_with_what_to_do(label: object, words: str) -> None:
    [line] = refusal("a", label, label)
    assert line.startswith("train.csv:3: column 'label'")
    assert words in line
    assert line.endswith("Also at train.csv:4.")


def test_a_field_of_a_column_is_named_with_a_dot() -> None:
    labels, _ = read({"name": "a"}, {"name": "b"}, label="label.name")
    assert labels == ["a", "b"]
    [line] = refusal({"name": "a"}, label="label.nam")
    assert "no column 'label.nam'. Did you mean 'name'?" in line


@pytest.mark.parametrize(
    "numbers", [[4.352, 0.504, 3.2, 1.75, 2.25, 4.0], [str(n) for n in range(100, 140)]]
)
def test_a_quantity_is_not_taken_for_classes(numbers: list[object]) -> None:
    [line] = refusal(*numbers)
    assert f"{len(numbers)} different numbers in {len(numbers)} rows" in line
    assert "a quantity to estimate (regression)" in line


def test_class_numbers_are_not_taken_for_a_quantity() -> None:
    assert len(read(*range(10))[0]) == 10
    assert len(read(*[1.5, 2.5] * 5)[0]) == 10


def test_every_problem_and_note_stands_in_one_answer() -> None:
    rows = table("good", "", CAFE, NFD, "good", "good")
    rows.notes.append("train.csv: its fields are separated by a semicolon.")
    rows.problems.append("train.csv:9: expected 2 fields as in the header, got another number.")
    rows.rows[4] = Row("train.csv:6", {"text": "x" * 30, "label": "good"})
    rows.rows[5] = Row("train.csv:7", {"text": " ", "label": "good"})
    with pytest.raises(TaskError) as caught:
        read_labelled({"train": rows}, LabelColumns(max_chars=20))
    lines = str(caught.value).split("\n")
    expected = [
        "train.csv:9: expected 2 fields",
        "train.csv:3: column 'label' holds no label, got ''",
        "train.csv:7: column 'text' should hold a text, got ' '",
        "note: train.csv: its fields are separated",
        "note: label 'café' is written in another Unicode form",
        "note: 1 of 4 texts of train cut to max_chars = 20 characters, the longest has 30: ",
    ]
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start)


def test_a_thousand_problems_are_counted() -> None:
    lines = refusal(*([n] for n in range(50)))
    assert len(lines) == MAX_PROBLEMS + 1
    assert lines[-1] == "... and 30 problems more."


def test_an_unknown_label_names_the_nearest_and_all_its_rows() -> None:
    [line] = refusal("good", "bad", "god", "god", known=["good", "bad"])
    assert line == (
        "train.csv:4: label 'god' is not one of the 2 known. Did you mean 'good'? Correct the row, "
        "or set labels or label_names. Also at train.csv:5."
    )


def item(text: str, label: str, where: str) -> Labelled:
    return Labelled(text, label, where, len(text))


def test_copies_overlaps_and_contradictions_are_counted() -> None:
    train = [item("a", "x", "train:1"), item("b", "x", "train:2"), item("b", "y", "train:3")]
    train += [item("c", "x", "train:4"), item("d", "y", "train:5")]
    notes: list[str] = []
    distinct = without_copies({"train": train, "test": [item("a", "y", "test:1")]}, notes)
    assert [[i.where for i in items] for items in distinct.values()] == [
        ["test:1"],
        ["train:2", "train:4", "train:5"],
    ]
    assert notes == [
        "1 row with a text that its split holds already, left out: train:3.",
        "1 row with a text of another split, left out (test wins over validation, validation over "
        "train): train:1.",
        "2 texts with contradicting labels, of which the first is kept: 'y' at test:1, 'x' at "
        "train:1, and others.",
    ]


def test_single_lacking_and_unused_classes_are_said() -> None:
    one = [item("a", "x", "w"), item("b", "x", "w")]
    assert list(class_notes({"train": one}, ())) == [
        "every label is 'x': with a single class there is nothing to learn."
    ]
    splits = {"train": [*one, item("c", "y", "w")], "test": [item("d", "x", "w")]}
    assert list(class_notes(splits, ("x", "y", "z"))) == [
        "test has no example of 1 of 2 classes (1 rows elsewhere): y.",
        "no row has 1 of the labels given: z.",
    ]
