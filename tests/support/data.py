"""Files of data, and datasets as a hub gives them, for tests of tasks that read some."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fastslow.core.errors import TaskError
from fastslow.task.definition import Task
from fastslow.task.registry import build_task

Rows = Sequence[Mapping[str, Any]]


def write_lines(path: Path, rows: Rows) -> Path:
    """JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def refusal(name: str, data: Path, **params: Any) -> list[str]:
    """The lines of the error that building the task gives, `data` written DATA."""
    with pytest.raises(TaskError) as caught:
        build_task(name, None, {"data": str(data), **params}, allow_code=True)
    return str(caught.value).replace(str(data), "DATA").split("\n")


def build(name: str, data: Path, **params: Any) -> Task:
    return build_task(name, None, {"data": str(data), **params}, allow_code=True)


def give_from_hub(
    monkeypatch: pytest.MonkeyPatch, splits: Mapping[str, Any]
) -> list[tuple[Any, ...]]:
    """Make `datasets.load_dataset` give these splits; returns what it is asked for."""
    asked: list[tuple[Any, ...]] = []

    def load_dataset(name: str, subset: str | None, revision: str | None) -> Mapping[str, Any]:
        asked.append((name, subset, revision))
        return splits

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    return asked
