"""Classification of texts from your own files (JSONL, CSV, Parquet) or a hub dataset."""

import os
from pathlib import Path

from pydantic import Field, PositiveInt

from fastslow.core.errors import TaskError
from fastslow.core.files import read_json
from fastslow.core.text import shorten
from fastslow.task.choices import ChoiceConfig
from fastslow.task.data_config import DataConfig
from fastslow.task.definition import Task, task
from fastslow.task.labelled import (
    LabelColumns,
    class_notes,
    folded,
    read_labelled,
    without_copies,
)


class TextClassification(ChoiceConfig, DataConfig):
    """Parameters of `text_classification`."""

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
    max_chars: PositiveInt = 1000
    """Longer texts are cut to this many characters, counted, and marked `cut` in their metadata."""
    instruction: str = "Classify the text."
    """The seed text without the labels, which `options` adds or leaves to be found."""
    max_tokens: PositiveInt = 12
    """Limit of one completion, in tokens; must hold the longest label and the stop token."""


@task(name="text_classification", version=1, source="the files or hub dataset named by `data`")
def text_classification(config: TextClassification) -> Task:
    """Label of a text. Score in [0, 1], higher is better.

    A text in two splits is kept in the first of test, validation, train; the example kept counts
    its lost `copies` in its metadata.
    """
    tables = config.tables("text_classification")
    columns = LabelColumns(
        config.text_column,
        config.label_column,
        config.cluster_column,
        config.label_names,
        config.max_chars,
    )
    labels = _labels(config)
    items, notes = read_labelled(tables, columns, labels)
    splits = config.carved(without_copies(items, notes))
    notes += class_notes(splits, map(folded, labels or ()))
    answers = sorted({item.label for chosen in splits.values() for item in chosen})
    return Task(
        *config.examples(splits, items),
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
