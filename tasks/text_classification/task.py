"""Classification of texts from your own files (JSONL, CSV, Parquet) or a hub dataset."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from pydantic import Field, NonNegativeInt, PositiveInt

from fastslow.core.errors import TaskError, nearest
from fastslow.core.files import read_json
from fastslow.core.text import shorten
from fastslow.core.types import Example
from fastslow.task.data_files import Row, read_splits
from fastslow.task.definition import Task, TaskConfig, task
from fastslow.task.graders import exact_match
from fastslow.task.splits import Splits, balanced_order, content_id


class TextClassification(TaskConfig):
    """Parameters of `text_classification`."""

    data: str | None = None
    """Folder with train, validation, test files; one file; or a hub id. Null: the run's `data`."""
    subset: str | None = None
    """Sub-folder of the folder, or configuration of the hub dataset."""
    text_column: str = Field("text", min_length=1)
    """Column that holds the text."""
    label_column: str = Field("label", min_length=1)
    """Column that holds the label."""
    cluster_column: str | None = None
    """Column that names the source of a row, where several rows share one, e.g. a document or an
    author: intervals then count sources. Null: each row is on its own."""
    labels: tuple[str, ...] | None = None
    """Every label. Null: labels.json next to the data, else the distinct labels of train."""
    label_names: dict[str | int, str] = Field(default_factory=dict)
    """Names of coded labels, e.g. `{0: negative, 1: positive}`."""
    validation_frac: float = Field(0.1, gt=0, lt=0.5)
    """Share of train that becomes validation when there is no validation file."""
    test_frac: float = Field(0.2, gt=0, lt=0.5)
    """Share of train that becomes test when there is no test file."""
    max_train: PositiveInt | None = None
    """Train examples kept, labels in proportion; null keeps all."""
    max_validation: PositiveInt | None = None
    """Validation examples kept, labels in proportion; null keeps all."""
    max_test: PositiveInt | None = None
    """Test examples kept, labels in proportion; null keeps all."""
    max_chars: PositiveInt = 1000
    """Longer texts are cut to this many characters, and marked `cut` in their metadata."""
    instruction: str = "Classify the text."
    """The seed text; leave the labels out: the channels are to find them."""
    max_tokens: PositiveInt = 12
    """Limit of one completion, in tokens; must hold the longest label and the stop token."""
    split_seed: NonNegativeInt = 0
    """Seed of the choice of examples for a split."""


@dataclass(frozen=True)
class _Item:
    text: str
    label: str
    where: str
    cut: bool
    cluster: str | None


@task(name="text_classification", version=1, source="the files or hub dataset named by `data`")
def text_classification(config: TextClassification) -> Task:
    """Label of a text, graded exactly. Score in [0, 1], higher is better.

    A text in two splits is kept in the first of test, validation, train; the example kept counts
    its lost `copies` in its metadata.
    """
    if config.data is None:
        raise TaskError(
            "task text_classification: needs data, got none. Give a folder, a file or a hub id "
            "as data=... for the run, or as the task's params.data."
        )
    rows = read_splits(config.data, config.subset)
    items = {split: [_item(row, config) for row in table] for split, table in rows.items()}
    _check_labels(items, _labels(config) or {item.label for item in items["train"]})
    splits = _carved(_distinct(items), config)
    limits = {
        "train": config.max_train,
        "validation": config.max_validation,
        "test": config.max_test,
    }
    copies = Counter(item.text for split in items.values() for item in split)
    return Task(
        *Splits(
            **{
                split: tuple(
                    _example(item, copies[item.text] - 1) for item in chosen[: limits[split]]
                )
                for split, chosen in splits.items()
            }
        ),
        instruction=config.instruction,
        grade=exact_match,
        max_tokens=config.max_tokens,
    )


def _item(row: Row, config: TextClassification) -> _Item:
    text = row.value(config.text_column, "text_column")
    code = row.value(config.label_column, "label_column")
    if not isinstance(text, str) or not text.strip():
        raise TaskError(
            f"{row.where}: column {config.text_column!r} should hold a text, got {_shown(text)}. "
            "Remove the row, or name another text_column."
        )
    if code is None or not str(code).strip():
        raise TaskError(
            f"{row.where}: column {config.label_column!r} holds no label, got {_shown(code)}. "
            "Remove the row, or name another label_column."
        )
    names = {str(key): name for key, name in config.label_names.items()}
    label = str(code).strip()
    shortened = text.strip()[: config.max_chars].rstrip()
    cluster = None
    if config.cluster_column is not None:
        value = row.value(config.cluster_column, "cluster_column")
        cluster = None if value is None or not str(value).strip() else str(value).strip()
    is_cut = len(text.strip()) > config.max_chars
    return _Item(shortened, names.get(label, label), row.where, is_cut, cluster)


def _shown(value: object) -> str:
    return shorten(repr(value), 80)


def _labels(config: TextClassification) -> set[str]:
    """The labels given by the config, or by labels.json next to the data; empty if by neither."""
    if config.labels is not None:
        return set(config.labels)
    folder = Path(config.data or "").expanduser() / (config.subset or "")
    file = (folder if folder.is_dir() else folder.parent) / "labels.json"
    if not os.path.lexists(file):
        return set()
    try:
        content = read_json(file)
    except (OSError, ValueError) as error:
        raise TaskError(
            f"{file}: not JSON: {shorten(str(error), 200)}. Correct it, or give labels."
        ) from error
    names = content.get("labels") if isinstance(content, dict) else content
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TaskError(f'{file}: expected {{"labels": ["...", ...]}} or a list of names.')
    return set(names)


def _check_labels(items: Mapping[str, Sequence[_Item]], labels: set[str]) -> None:
    for item in (item for split in items.values() for item in split):
        if item.label not in labels:
            raise TaskError(
                f"{item.where}: label {_shown(item.label)} is not one of the {len(labels)} known."
                f"{nearest(item.label, labels)} Correct the row, or set labels or label_names."
            )


def _distinct(items: Mapping[str, Sequence[_Item]]) -> dict[str, list[_Item]]:
    """Each text once, in the first of test, validation, train that holds it."""
    taken: set[str] = set()
    distinct: dict[str, list[_Item]] = {}
    for split in ("test", "validation", "train"):
        if split not in items:
            continue
        distinct[split] = []
        for item in items[split]:
            if item.text not in taken:
                taken.add(item.text)
                distinct[split].append(item)
        if not distinct[split]:
            raise TaskError(
                f"task text_classification: all {len(items[split])} texts of {split} are in "
                "another split too (test wins over validation, validation over train), "
                "so none is left. Give other files, or raise max_chars if texts are cut alike."
            )
    return distinct


def _carved(
    items: Mapping[str, Sequence[_Item]], config: TextClassification
) -> dict[str, list[_Item]]:
    """All three splits in balanced order, missing ones taken from train."""
    splits = {
        split: balanced_order(((item, item.label) for item in members), config.split_seed, split)
        for split, members in items.items()
    }
    size = len(splits["train"])
    for split, frac in (("test", config.test_frac), ("validation", config.validation_frac)):
        if split not in splits:
            count = max(1, round(frac * size))
            splits[split], splits["train"] = splits["train"][:count], splits["train"][count:]
    return splits


def _example(item: _Item, copies: int) -> Example:
    return Example(
        id=content_id(item.text),
        question=item.text,
        answer=item.label,
        metadata={"source": PurePath(item.where).name, "copies": copies, "cut": item.cut},
        cluster=item.cluster,
    )
