"""A run remembers its examples; what is not the same any more is counted and named."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fastslow.cli.main import main
from fastslow.core.errors import CheckpointError
from fastslow.core.types import Example
from fastslow.records.data import (
    DATA_FILE,
    Identity,
    data_of,
    differences,
    golds_of,
    read_data,
    require_comparable,
    require_same_data,
    write_data,
)
from fastslow.records.jsonl import score_from_json, to_json
from fastslow.task.definition import Task
from fastslow.task.graders import exact_match
from tests.support.run_folder import score_row, without_seal, write_run

Change = Callable[[Example], Example]


def task(train: int = 8, change: Change = lambda example: example, only: str = "") -> Task:
    """Eight, two and four examples; those whose id begins with `only` are changed."""

    def split(name: str, size: int) -> tuple[Example, ...]:
        examples = (Example(f"{name}-{i}", f"{name} {i}?", "yes") for i in range(size))
        return tuple(change(e) if only and e.id.startswith(only) else e for e in examples)

    splits = (split("train", train), split("validation", 2), split("test", 4))
    return Task(*splits, "Answer.", exact_match, 4, name="t")


def flipped(example: Example) -> Example:
    return replace(example, answer="no")


def asked_otherwise(example: Example) -> Example:
    return replace(example, question=f"Well, {example.question}")


def words(new: Task, old: Task | None = None) -> list[str]:
    return [str(d) for d in differences(data_of(old or task()), data_of(new))]


def test_the_same_examples_in_another_order_are_the_same() -> None:
    backwards = replace(task(), train=task().train[::-1])
    assert words(backwards) == []


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (task(change=flipped, only="train"), ["8 of 8 train examples changed their gold answer"]),
        (task(change=flipped, only="test-3"), ["1 of 4 test examples changed their gold answer"]),
        (
            task(change=asked_otherwise, only="validation"),
            ["2 of 2 validation examples changed their question"],
        ),
        (task(train=6), ["2 of 8 train examples are gone"]),
        (task(train=9), ["1 train examples are new"]),
    ],
)
def test_every_kind_of_change_is_counted(new: Task, expected: list[str]) -> None:
    assert words(new) == expected


def test_an_example_of_another_split_is_named() -> None:
    old = task()
    new = replace(old, train=old.train[1:], test=(*old.test, old.train[0]))
    assert words(new) == ["1 of 8 train examples are in another split now"]


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path) -> None:
    write_data(tmp_path, {"t": task()})
    before = (tmp_path / DATA_FILE).read_bytes()
    require_same_data(tmp_path, {"t": task(), "new": task()})
    with pytest.raises(CheckpointError) as caught:
        require_same_data(tmp_path, {"t": task(change=flipped, only="train")})
    assert "8 of 8 train examples changed their gold answer (for one, 'train-0'" in str(
        caught.value
    )
    assert "now 'train 0?' with the answer 'no'" in str(caught.value)
    assert caught.value.exit_code == 2
    assert (tmp_path / DATA_FILE).read_bytes() == before


def test_a_folder_of_an_older_version_knows_nothing(tmp_path: Path) -> None:
    assert read_data(tmp_path) == {}
    require_same_data(tmp_path, {"t": task(change=flipped, only="train")})


@pytest.mark.parametrize("content", ["{}", "[1]", '{"tasks": {"t": {"train": {"a": 1}}}}', "{"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / DATA_FILE).write_text(content)
    with pytest.raises(CheckpointError, match="not the record of a run's data"):
        read_data(tmp_path)


def identity(name: str, built: Task, data: str = "a") -> Identity:
    return Identity(name, {"data": data, "tasks.t.use": "x"}, {"t": data_of(built)})


@pytest.mark.parametrize(
    ("other", "data", "may_grow", "is_refused"),
    [
        (task(), "a", False, False),
        (task(change=flipped, only="test-0"), "b", False, True),
        (task(change=asked_otherwise, only="test-0"), "b", True, True),
        (task(change=flipped, only="train"), "a", True, True),
        (task(change=flipped, only="train"), "b", False, False),
        (task(train=20), "a", False, True),
        (task(train=20), "a", True, False),
        (task(train=20), "b", False, False),
    ],
)
def test_runs_are_compared_only_on_the_same_golds(
    other: Task, data: str, may_grow: bool, is_refused: bool
) -> None:
    runs = [identity("one", task()), identity("two", other, data)]
    if not is_refused:
        require_comparable(runs, may_grow=may_grow)
        return
    with pytest.raises(CheckpointError, match="two: the data of task 't' is not that of one: "):
        require_comparable(runs, may_grow=may_grow)


def test_an_example_with_two_golds_is_refused() -> None:
    rows = [
        replace(score_row("r", row, "alpha", 0, 1.0), gold=gold) for row, gold in enumerate("aab")
    ]
    assert golds_of(rows[:2], Path("x")) == {"alpha": {"e0": "a"}}
    with pytest.raises(CheckpointError, match=r"example 'e0' of task 'alpha' was graded by two"):
        golds_of(rows, Path("x"))


def test_rows_keep_their_gold_and_old_rows_have_none() -> None:
    row = replace(score_row("r", 0, "alpha", 0, 1.0), gold="abc")
    data = dict(to_json(row))
    assert score_from_json(data) == row
    del data["gold"]
    assert score_from_json(data) == replace(row, gold=None)


def with_golds(run: Path, gold: str) -> Path:
    """The run with this gold in every row, as far as scores alone show it."""
    path = without_seal(run) / "scores.jsonl"
    rows = [json.loads(line) | {"gold": gold} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


@pytest.mark.parametrize("command", [["compare"], ["gate", "--against"]])
def test_commands_that_compare_runs_refuse_other_golds(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = with_golds(write_run(tmp_path / "a"), "a" * 12)
    second = with_golds(write_run(tmp_path / "b"), "b" * 12)
    folders = [str(second), *command[1:], str(first)]
    assert main([command[0], *folders]) == 2
    assert "8 of 8 test examples changed their gold answer" in capsys.readouterr().err
    assert not list(tmp_path.rglob("compare.*"))
    with_golds(second, "a" * 12)
    assert main([command[0], *folders]) != 2
