"""Which examples a run was made on: hashes of questions and answers, in data.json of its folder.

Scores of one example can be compared where its question and its gold answer stayed the same.
Folders of older versions have no such file, and nothing is known of them.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path

from fastslow.config.loading.load import leaves
from fastslow.core.decode import shaped
from fastslow.core.errors import CheckpointError
from fastslow.core.files import damage_errors, read_json, write_file
from fastslow.core.text import shorten
from fastslow.core.types import Example, Json
from fastslow.records.events import ScoreRow
from fastslow.records.jsonl import read_scores
from fastslow.task.definition import Task
from fastslow.task.splits import content_id

DATA_FILE = "data.json"
_HASH = len(content_id(""))
_UNKNOWN = "-" * _HASH
"""Stands for the hash of a question where scores alone are known."""


@dataclass(frozen=True, slots=True)
class TaskData:
    """The examples of a task: by id, the hash of the question and then that of the answer."""

    train: Mapping[str, str] = field(default_factory=dict)
    validation: Mapping[str, str] = field(default_factory=dict)
    test: Mapping[str, str] = field(default_factory=dict)

    @property
    def splits(self) -> dict[str, Mapping[str, str]]:
        """The three by name."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


@dataclass(frozen=True, slots=True)
class RunData:
    """The content of data.json."""

    tasks: Mapping[str, TaskData]
    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which the examples of a split are not those they were."""

    split: str
    change: str
    """What became of them, e.g. `changed their gold answer`."""
    examples: tuple[str, ...]
    """Ids of all of them; at least one."""
    size: int
    """Examples of the split before; 0 where it is about new ones."""

    @property
    def is_contradiction(self) -> bool:
        """Whether one example means two things, rather than being there or not."""
        return self.change in (_GOLD, _QUESTION)

    def __str__(self) -> str:
        size = f" of {self.size:,}" if self.size else ""
        return f"{len(self.examples):,}{size} {self.split} examples {self.change}"


_GOLD, _QUESTION = "changed their gold answer", "changed their question"
_MOVED, _GONE = "are in another split now", "are gone"


def data_of(task: Task) -> TaskData:
    """The hashes of a task's examples."""

    def hashes(examples: Sequence[Example]) -> dict[str, str]:
        return {e.id: content_id(e.question) + content_id(e.answer) for e in examples}

    return TaskData(hashes(task.train), hashes(task.validation), hashes(task.test))


def write_data(folder: Path, tasks: Mapping[str, Task]) -> None:
    """Write data.json; `OSError` if the disk refuses."""
    data = RunData({name: data_of(task) for name, task in tasks.items()})
    write_file(folder, DATA_FILE, json.dumps(asdict(data), separators=(",", ":")) + "\n")


def read_data(run: Path) -> dict[str, TaskData]:
    """The examples of a run by task; nothing for a run of an older version.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = run / DATA_FILE
    if not os.path.lexists(path):
        return {}
    with damage_errors(path, "not the record of a run's data"):
        return dict(shaped(RunData, read_json(path)).tasks)


def golds_of(scores: Iterable[ScoreRow], path: Path) -> dict[str, dict[str, str]]:
    """Hash of the gold answer of every example that was scored, by task; old rows have none.

    Raises:
        CheckpointError: An example was graded by two answers.
    """
    golds: dict[str, dict[str, str]] = {}
    for row in scores:
        if row.gold is None:
            continue
        sample = row.sample
        if golds.setdefault(sample.task, {}).setdefault(sample.example, row.gold) != row.gold:
            raise CheckpointError(
                f"{path}: example {shorten(sample.example, 60)!r} of task {sample.task!r} was "
                "graded by two gold answers, so its scores cannot be compared. The data changed "
                "under the run; start a new one."
            )
    return golds


def run_data(run: Path) -> dict[str, TaskData]:
    """The examples of a run as `read_data` gives them, else as far as its scores show them."""
    if data := read_data(run):
        return data
    path = run / "scores.jsonl"
    return {
        task: TaskData(test={example: _UNKNOWN + gold for example, gold in members.items()})
        for task, members in golds_of(read_scores(path), path).items()
    }


def differences(old: TaskData, new: TaskData) -> Iterator[Difference]:
    """What changed between two records of one task, the gravest first in each split."""
    now = {
        example: (split, digest)
        for split, members in new.splits.items()
        for example, digest in members.items()
    }
    for split, members in old.splits.items():
        changes: dict[str, list[str]] = {_GOLD: [], _QUESTION: [], _MOVED: [], _GONE: []}
        for example, digest in members.items():
            if change := _change((split, digest), now.get(example)):
                changes[change].append(example)
        for change, examples in changes.items():
            if examples:
                yield Difference(split, change, tuple(examples), len(members))
    before = {example for members in old.splits.values() for example in members}
    for split, members in new.splits.items():
        if fresh := tuple(example for example in members if example not in before):
            yield Difference(split, "are new", fresh, 0)


def _change(before: tuple[str, str], now: tuple[str, str] | None) -> str | None:
    """What became of an example, given its split and hashes; None if nothing did."""
    if now is None:
        return _GONE
    (split, digest), (new_split, new_digest) = before, now
    if digest[_HASH:] != new_digest[_HASH:]:
        return _GOLD
    questions = digest[:_HASH], new_digest[:_HASH]
    if questions[0] != questions[1] and _UNKNOWN not in questions:
        return _QUESTION
    return _MOVED if split != new_split else None


def require_same_data(run: Path, tasks: Mapping[str, Task]) -> None:
    """Make sure that a run goes on with the examples it began with.

    Raises:
        CheckpointError: They are not the same; counts them, and shows one.
    """
    for name, before in read_data(run).items():
        if name in tasks and (changes := list(differences(before, data_of(tasks[name])))):
            raise CheckpointError(
                f"{run}: the data of task {name!r} is not what the run began with: "
                f"{described(changes, tasks[name])}. Give the old data back, or start a new run."
            )


@dataclass(frozen=True)
class Identity:
    """What a run, made or to be made, stands on."""

    name: str
    """For messages."""
    settings: Mapping[str, Json]
    """Its configuration by dotted keys."""
    tasks: Mapping[str, TaskData]

    def names_same_data(self, identity: "Identity", task: str) -> bool:
        """Whether both configurations say the same about a task and where its data is."""

        def about(settings: Mapping[str, Json]) -> dict[str, Json]:
            keys = (key for key in settings if key == "data" or key.startswith(f"tasks.{task}."))
            return {key: settings[key] for key in keys}

        return about(self.settings) == about(identity.settings)


def read_identity(run: Path) -> Identity:
    """The identity of a run folder.

    Raises:
        CheckpointError: A file of it is damaged.
    """
    tasks = run_data(run)
    with damage_errors(run / "config.json", "cannot be read"):
        settings = leaves(read_json(run / "config.json")) if tasks else {}
    return Identity(str(run), settings, tasks)


def require_comparable(runs: Sequence[Identity], *, may_grow: bool = False) -> None:
    """Make sure that the scores of all runs are of one thing, two by two.

    No test example that both have may differ. Where both configurations name the same data, no
    example of any split may; `may_grow` lets some be new or gone.

    Raises:
        CheckpointError: Some do; counts them, and names one.
    """
    for first, second in combinations(runs, 2):
        for task in first.tasks.keys() & second.tasks.keys():
            if first.tasks[task] == second.tasks[task]:
                continue
            is_strict = first.names_same_data(second, task)
            changes = [
                change
                for change in differences(first.tasks[task], second.tasks[task])
                if (change.is_contradiction and (is_strict or change.split == "test"))
                or (is_strict and not may_grow)
            ]
            if changes:
                raise CheckpointError(
                    f"{second.name}: the data of task {task!r} is not that of {first.name}: "
                    f"{described(changes)}. Scores on different data cannot be compared. Make both "
                    "runs on the same, or name the other data in the configuration of one."
                )


def described(changes: Sequence[Difference], task: Task | None = None) -> str:
    """The changes in one clause, with the first example of the first; its text where it is here."""
    first = changes[0].examples[0]
    examples = (*task.train, *task.validation, *task.test) if task else ()
    example = next((example for example in examples if example.id == first), None)
    words = f"for one, {shorten(first, 60)!r}"
    if example is not None:
        question, answer = shorten(example.question, 60), shorten(example.answer, 60)
        words += f", now {question!r} with the answer {answer!r}"
    return f"{', '.join(map(str, changes))} ({words})"
