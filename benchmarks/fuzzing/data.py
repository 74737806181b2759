"""Mutated data files, hostile completions and hostile names.

Data files go through the task `text_classification` and the readers under it, completions through
the graders of the package and of every shipped task, names through whatever looks names up.
"""

import csv
import io
import json
import os
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.fuzzing.values import TOKENS, WORDS, hostile, mutate_bytes, mutate_tree
from fastslow.core.text import shorten, visible
from fastslow.core.types import Example
from fastslow.task.data_config import DataConfig
from fastslow.task.definition import Task
from fastslow.task.graders import boxed_match, exact_match, numeric
from fastslow.task.registry import find_task, task_folder, task_names
from fastslow.task.table_files import read_table

SPLITS = ("train", "validation", "test")
NAMES = tuple(word for word in WORDS if word and word.isprintable())
"""Words that a configuration can hold."""
LONG_LINE = 100_000_000
"""Bytes of the longest line there is."""


def table_case(draw: random.Random, folder: Path) -> Callable[[], object]:
    """A folder of data files, some of them mutated, and the task that reads it."""
    data = folder / "data"
    data.mkdir()
    for split in draw.choice((SPLITS, SPLITS, ("train",), ("train", "test"))):
        rows = _rows(draw)
        for _ in range(draw.choice((0, 0, 0, 1, 2))):
            rows = mutate_tree(rows, draw)
        _write_table(draw, data, split, rows if isinstance(rows, list) else [rows])
    if draw.random() < 0.3:
        labels: Any = {"labels": ["good", "bad"]}
        labels = mutate_tree(labels, draw) if draw.random() < 0.7 else labels
        text = json.dumps(labels).encode()
        (data / "labels.json").write_bytes(
            mutate_bytes(text, draw) if draw.random() < 0.3 else text
        )
    if draw.random() < 0.15:
        _strange(draw, data)
    params: dict[str, Any] = {"data": str(draw.choice((data, data, data, data / "train.jsonl")))}
    if draw.random() < 0.1:
        params["data"] = draw.choice((*WORDS, "a" * 5000, str(folder / ("b" * 300))))
    if draw.random() < 0.1:
        params["subset"] = draw.choice(WORDS)
    if draw.random() < 0.1:
        params[draw.choice(("text_column", "label_column"))] = draw.choice(NAMES)
    return lambda: _use(find_task("text_classification").build("data", params), draw)


def _use(task: Task, draw: random.Random) -> None:
    """What a run does with examples before a model sees them."""
    for example in (*task.train, *task.validation, *task.test):
        example.question.encode()
        example.answer.encode()
        assert example.answer.strip(), "an empty gold answer"
        json.dumps(example.metadata, allow_nan=False)
    shorten(draw.choice(task.train).question, 80)


def _rows(draw: random.Random) -> list[Any]:
    size = draw.choice((3, 12, 40, 40))
    names = ("good", "bad")
    return [
        {"text": f"text number {draw.randrange(200)}", "label": draw.choice(names)}
        for _ in range(size)
    ]


def _write_table(draw: random.Random, folder: Path, split: str, rows: list[Any]) -> None:
    """One file of one split in one of the formats, its bytes perhaps mutated."""
    kind = draw.choice(("jsonl", "jsonl", "jsonl", "csv", "parquet"))
    if kind == "jsonl":
        data = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    elif kind == "csv":
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(["text", "label"])
        for row in rows:
            values = row.values() if isinstance(row, dict) else [row]
            writer.writerow([str(value)[:200_000] for value in values])
        data = out.getvalue().encode("utf-8", "surrogatepass")
    else:
        data = _parquet(rows)
    for _ in range(draw.choice((0, 0, 0, 0, 1, 2))):
        data = mutate_bytes(data, draw)
    if draw.random() < 0.005:
        data += b'{"text": "' + b"x" * LONG_LINE
    (folder / f"{split}.{kind}").write_bytes(data)


def _parquet(rows: list[Any]) -> bytes:
    import pyarrow as arrow  # type: ignore[import-untyped]  # it ships no types
    import pyarrow.parquet as parquet  # type: ignore[import-untyped]  # likewise

    out = io.BytesIO()
    try:
        table = arrow.Table.from_pylist([row for row in rows if isinstance(row, dict)])
        parquet.write_table(table, out)
    except (arrow.ArrowException, UnicodeEncodeError, OverflowError, TypeError):
        parquet.write_table(arrow.table({"text": ["a", "b"], "label": ["good", "bad"]}), out)
    return out.getvalue()


def _strange(draw: random.Random, folder: Path) -> None:
    """Something in the place of a file that is none."""
    path = folder / draw.choice(("train.jsonl", "test.csv", "labels.json", "validation.parquet"))
    path.unlink(missing_ok=True)
    kind = draw.randrange(5)
    if kind == 0:
        path.mkdir()
    elif kind == 1:
        os.mkfifo(path)
    elif kind == 2:
        path.symlink_to(path.name)
    elif kind == 3:
        path.symlink_to("/dev/zero")
    else:
        path.write_bytes(b"")


def file_case(draw: random.Random, folder: Path) -> Callable[[], object]:
    """Bytes that call themselves a table."""
    path = folder / f"table.{draw.choice(('jsonl', 'csv', 'parquet', 'pkl'))}"
    data = _parquet(_rows(draw)) if path.suffix == ".parquet" else b"text,label\na,b\n"
    for _ in range(draw.randrange(1, 6)):
        data = mutate_bytes(data, draw)
    path.write_bytes(data)
    return lambda: read_table(path)


@cache
def graded() -> tuple[tuple[str, Any, Example], ...]:
    """Every grader, with an example of its own."""
    own = Example("1", "What is 2 + 2?", "4")
    found: list[tuple[str, Any, Example]] = [
        ("exact_match", exact_match, own),
        ("numeric", numeric, own),
        ("boxed_match", boxed_match, Example("1", "?", r"\boxed{4}")),
    ]
    for name in task_names():
        definition = find_task(name)
        if definition.runs_code:
            continue
        has_data = issubclass(definition.config_class, DataConfig)
        params = {"data": str(task_folder(name) / "sample.jsonl")} if has_data else {}
        task = definition.build(name, params)
        found.append((name, task.grade, task.test[0]))
    return tuple(found)


def grader_case(draw: random.Random, folder: Path) -> Callable[[], object]:
    """A completion that a language model might come to write, or be made to write."""
    name, grade, example = draw.choice(graded())
    text = _completion(draw, example.answer)

    def act() -> None:
        given = grade(example, text)
        assert 0 <= given.score <= 1, f"{name}: score {given.score}"
        assert len(given.reason) < 2000, f"{name}: a reason of {len(given.reason)} characters"
        print(visible(given.reason))

    return act


def _completion(draw: random.Random, gold: str) -> str:
    long = draw.choice(
        ("x", "9", " ", "\n", "(", "\\boxed{", "####", "1,", "e9", ".", "\u202e", "-1")
    )
    start = draw.choice(("", gold, f"{gold}\x1b[2J", "#### ", "\\boxed{", "The answer is "))
    middle = draw.choice((
        long * (1_000_000 // len(long)) if draw.random() < 0.3 else long * 50,
        draw.choice(WORDS),
        draw.choice(TOKENS).decode("utf-8", "surrogateescape"),
        "".join(chr(draw.randrange(0xD800)) for _ in range(40)),
        str(hostile(draw)),
    ))  # fmt: skip
    return start + middle + draw.choice(("", gold, "}", f" {gold}."))


def name_case(draw: random.Random, folder: Path) -> Callable[[], object]:
    """A name of a task, a model or a run folder that tries to be something else."""
    from fastslow.cli import check, models, report, tasks, train
    from fastslow.policy.model_store import resolve

    name = draw.choice(WORDS)
    for _ in range(draw.choice((0, 0, 1, 2))):
        name += draw.choice(("/", ":", ".", "..", "\0", "")) + draw.choice(WORDS)
    path = Path(name)
    acts: list[Callable[[], object]] = [
        lambda: find_task(name),
        lambda: tasks.tasks_show(name),
        lambda: tasks.tasks_check(name, [f"{name}={name}"]),
        lambda: resolve(name),
        lambda: models.models_where(name),
        lambda: models.models_fetch(name) if name != "smollm2-135m-instruct" else None,
        lambda: train.resume(path),
        lambda: report.report(path),
        lambda: report.report(path, recompute=True),
        lambda: report.prompts(path),
        lambda: report.probe(path, task=name),
        lambda: check.check([name]),
    ]
    return draw.choice(acts)
