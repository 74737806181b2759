"""Classification of texts from your own files (JSONL, CSV, Parquet) or a hub dataset."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from pydantic import Field, NonNegativeInt, PositiveInt

from fastslow.core.errors import MissingDataError, TaskError
from fastslow.core.files import read_json
from fastslow.core.text import shorten
from fastslow.core.types import Example
from fastslow.task.choices import ChoiceConfig
from fastslow.task.data_files import read_splits
from fastslow.task.definition import Task, task
from fastslow.task.labelled import (
    LabelColumns,
    Labelled,
    class_notes,
    folded,
    read_labelled,
    without_copies,
)
from fastslow.task.splits import Splits, balanced_order, content_id


class TextClassification(ChoiceConfig):
    """Parameters of `text_classification`."""

    data: str | None = None
    """Folder with train, validation, test files; one file; or a hub id. Null: the run's `data`.
    Files are JSONL, JSON, CSV, TSV or Parquet, packed (.gz, .zst, .bz2, .xz) or not."""
    subset: str | None = None
    """Sub-folder of the folder, or configuration of the hub dataset."""
    text_column: str = Field("text", min_length=1)
    """Column that holds the text."""
    label_column: str = Field("label", min_length=1)
    """Column that holds the label; `a.b` is field b of column a."""
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
    """Longer texts are cut to this many characters, counted, and marked `cut` in their metadata."""
    instruction: str = "Classify the text."
    """The seed text without the labels, which `options` adds or leaves to be found."""
    max_tokens: PositiveInt = 12
    """Limit of one completion, in tokens; must hold the longest label and the stop token."""
    split_seed: NonNegativeInt = 0
    """Seed of the choice of examples for a split."""


@task(name="text_classification", version=1, source="the files or hub dataset named by `data`")
def text_classification(config: TextClassification) -> Task:
    """Label of a text. Score in [0, 1], higher is better.

    A text in two splits is kept in the first of test, validation, train; the example kept counts
    its lost `copies` in its metadata.
    """
    if config.data is None:
        raise MissingDataError(
            "task text_classification: needs data, got none. Give a folder, a file or a hub id "
            "as data=... for the run, or as the task's params.data."
        )
    columns = LabelColumns(
        config.text_column,
        config.label_column,
        config.cluster_column,
        config.label_names,
        config.max_chars,
    )
    labels = _labels(config)
    items, notes = read_labelled(read_splits(config.data, config.subset), columns, labels)
    splits = _carved(without_copies(items, notes), config)
    notes += class_notes(splits, map(folded, labels or ()))
    limits = {
        "train": config.max_train,
        "validation": config.max_validation,
        "test": config.max_test,
    }
    answers = sorted({item.label for chosen in splits.values() for item in chosen})
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
        instruction=config.instructed(config.instruction, answers),
        grade=config.grader_of(answers),
        max_tokens=config.max_tokens,
        notes=tuple(notes),
    )


def _labels(config: TextClassification) -> set[str] | None:
    """The labels given by the config, or by labels.json next to the data; None if by neither."""
    if config.labels is not None:
        return set(config.labels)
    folder = Path(config.data or "").expanduser() / (config.subset or "")
    file = (folder if folder.is_dir() else folder.parent) / "labels.json"
    if not os.path.lexists(file):
        return None
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


def _carved(
    items: Mapping[str, Sequence[Labelled]], config: TextClassification
) -> dict[str, list[Labelled]]:
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


def _example(item: Labelled, copies: int) -> Example:
    return Example(
        id=content_id(item.text),
        question=item.text,
        answer=item.label,
        metadata={"source": PurePath(item.where).name, "copies": copies, "cut": item.is_cut},
        cluster=item.cluster,
    )
