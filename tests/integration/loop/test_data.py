"""Data that changes under a run, and graders that give no grades: refused before any work."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fastslow.core.errors import CheckpointError, TaskError
from fastslow.core.types import Example, Grade
from fastslow.loop import launch
from fastslow.records.data import read_data
from fastslow.records.events import DataEvent
from fastslow.records.jsonl import read_events, read_scores
from fastslow.results.compare.build import compare_runs
from fastslow.results.report import build_report
from fastslow.task.definition import Task, TaskConfig, task
from fastslow.task.splits import content_id
from tests.support.runs import TOY, cut_after_slow_phase, no_report, start


class Words(TaskConfig):
    """Parameters of `percents` and `speechless`: none."""


def words(grade: Any) -> Task:
    def split(name: str, size: int) -> tuple[Example, ...]:
        return tuple(Example(f"{name}-{i}", f"{name} {i}", "a") for i in range(size))

    return Task(split("train", 24), split("validation", 2), split("test", 4), "Write.", grade, 4)


def percent(example: Example, text: str) -> Grade:
    return Grade(100.0 * (text == example.answer), "percent")


def no_reason(example: Example, text: str) -> Any:
    return Grade(float(text == example.answer), None)  # type: ignore[arg-type]  # the point


def half(example: Example, text: str) -> Grade:
    return Grade(0.5, "half")


@task(name="percents", version=1, source="made here")
def percents(config: Words) -> Task:
    """Graded in percents."""
    return words(percent)


@task(name="speechless", version=1, source="made here")
def speechless(config: Words) -> Task:
    """Graded without a reason."""
    return words(no_reason)


@task(name="halves", version=1, source="made here")
def halves(config: Words) -> Task:
    """Graded as half right, whatever it is."""
    return words(half)


def write(path: Path, flipped: int = 0) -> Path:
    """Forty texts with two labels, the first of them with the other one."""
    labels = ["even", "odd"]
    rows = [{"text": f"text {n}", "label": labels[(n + (n < flipped)) % 2]} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def toy_with(name: str) -> str:
    """The toy run, with a task of this module as its second."""
    second = '{use: "tests.support.toy_tasks:letters", params: {wanted: "mnopqrst"}}'
    assert second in TOY
    return TOY.replace(second, f"{{use: '{__name__}:{name}'}}")


def overrides(data: Path, model: Path) -> list[str]:
    first = f"{{use: text_classification, params: {{data: {data}}}}}"
    return [f"model.name={model}", f"tasks.first={first}", "fast=null"]


def test_a_run_whose_labels_changed_is_not_resumed_and_nothing_is_written(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write(tmp_path / "data.jsonl")
    run = cut_after_slow_phase(2, tmp_path, overrides(data, tiny_folder), monkeypatch)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    write(data, flipped=40)
    with pytest.raises(CheckpointError) as caught:
        launch.resume(run, no_report)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert "the data of task 'first' is not what the run began with: " in message
    assert "28 of 28 train examples changed their gold answer" in message
    assert "8 of 8 test examples changed their gold answer" in message
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    write(data)
    launch.resume(run, no_report)
    scores = [row for row in read_scores(run / "scores.jsonl") if row.sample.task == "first"]
    golds = read_data(run)["first"].test
    assert {row.gold for row in scores} == {content_id("even"), content_id("odd")}
    assert all(golds[row.sample.example].endswith(str(row.gold)) for row in scores)
    [first, second] = [e for e in read_events(run / "events.jsonl") if isinstance(e, DataEvent)]
    assert (first.data.task, second.data.task) == ("first", "second")
    assert first.data.train.classes == {"even": 14, "odd": 14}
    assert "| first | train | 28 | 2 |" in "".join(
        line
        for table in build_report(run).tables()
        if table.title == "Data"
        for line in [f"| {' | '.join(cell.text for cell in row[:4])} |" for row in table.rows]
    )


def test_runs_on_other_labels_are_not_compared(tmp_path: Path, tiny_folder: Path) -> None:
    data = write(tmp_path / "data.jsonl")
    base = [*overrides(data, tiny_folder), "slow=null"]
    first = start(tmp_path, base)
    write(data, flipped=10)
    second = start(tmp_path, base)
    with pytest.raises(CheckpointError, match="changed their gold answer"):
        compare_runs([first, second])
    twin = shutil.copytree(first, tmp_path / "twin")
    assert compare_runs([first, twin]).tasks == ("first", "second")


@pytest.mark.parametrize(
    ("name", "words"),
    [("percents", "returned Grade(score=100.0"), ("speechless", "whose reason is not a text")],
)
def test_a_grader_that_gives_no_grades_is_refused_before_a_folder_is_made(
    name: str, words: str, tmp_path: Path, tiny_folder: Path
) -> None:
    with pytest.raises(TaskError) as caught:
        start(tmp_path, [f"model.name={tiny_folder}", "graders.timeout_s=60"], toy_with(name))
    assert str(caught.value).startswith("task second: its grader returned Grade(score=")
    assert words in str(caught.value)
    assert not list(tmp_path.glob("runs/*"))


def test_gold_answers_with_less_than_full_marks_are_noted(
    tmp_path: Path, tiny_folder: Path
) -> None:
    shape = [f"model.name={tiny_folder}", "fast=null", "slow=null"]
    run = start(tmp_path, shape, toy_with("halves"))
    notes = [
        note
        for event in read_events(run / "events.jsonl")
        if isinstance(event, DataEvent)
        for note in event.data.notes
    ]
    assert len(notes) == 1
    assert notes[0].startswith("the grader gives gold answers less than full marks: 0.5 to 'a'")
