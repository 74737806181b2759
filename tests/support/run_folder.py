"""A small run folder written through the real writers, and its report; no model is needed.

Three tasks (alpha, beta, gamma), one stage each, eight test examples; `outcomes[row][task]` is a
string of digits, one example each, `1` right and `0` wrong.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from fastslow.config.models import RunConfig, StageConfig, TaskUse
from fastslow.core.prompts import Demonstration, PromptProgram
from fastslow.core.types import SampleScore
from fastslow.measure.scores.matrix import headline_policy
from fastslow.records.events import (
    CycleEvent,
    DriftEvent,
    EvaluationEvent,
    RunEvent,
    ScoreRow,
    TextEvent,
)
from fastslow.records.run_folder import RunDir
from fastslow.results.render.writing import write_files
from fastslow.results.report import build_report, render_terminal, write
from fastslow.results.report.markdown import markdown

TASKS = ("alpha", "beta", "gamma")
OUTCOMES: tuple[Mapping[str, str], ...] = (
    {"alpha": "00000001", "beta": "00000000", "gamma": "00000000"},
    {"alpha": "11111111", "beta": "00100000", "gamma": "00000000"},
    {"alpha": "11110000", "beta": "11111100", "gamma": "00000001"},
    {"alpha": "10000000", "beta": "11111100", "gamma": "11111000"},
)


def config(runs_dir: Path, tasks: Sequence[str] = TASKS, held_out: Sequence[str] = ()) -> RunConfig:
    return RunConfig(
        name="small",
        runs_dir=str(runs_dir),
        stages=tuple(StageConfig(task=task, cycles=1) for task in tasks),
        tasks={task: TaskUse(use="made-up") for task in (*tasks, *held_out)},
    )


def text_of(task: str) -> PromptProgram:
    return PromptProgram(f"Answer {task}.", (Demonstration(f"{task}?", f"{task}!"),))


def score_row(
    run: str, row: int, task: str, example: int, score: float, stages: Sequence[str] = TASKS
) -> ScoreRow:
    policy = headline_policy(tuple(stages), row, task)
    text = text_of(task) if policy == "live" else PromptProgram(f"{task}: ")
    sample = SampleScore(
        task=task,
        version=f"{task}@1",
        example=f"e{example}",
        sample=0,
        prompt_policy=policy,
        text_hash=text.text_hash,
        weights=f"w{row}",
        completion="yes" if score == 1 else "no",
        tokens=2,
        score=score,
        reason="correct" if score == 1 else "not the answer",
    )
    return ScoreRow(run, row, None, sample)


def write_row(
    run_dir: RunDir, row: int, outcomes: Mapping[str, str], stages: Sequence[str] = TASKS
) -> None:
    for task, digits in outcomes.items():
        run_dir.scores.append(
            *(
                score_row(run_dir.path.name, row, task, example, float(digit), stages)
                for example, digit in enumerate(digits)
            )
        )
        run_dir.events.append(
            DriftEvent(row, task, "kl_fst", 0.125 * row, None, 8, text_of(task).text_hash)
        )
    run_dir.events.append(EvaluationEvent(row, sum(map(len, outcomes.values())), 1.5))


def write_stage(run_dir: RunDir, index: int, task: str) -> None:
    run_dir.events.append(
        CycleEvent(index, 0, {"fast": 32}, {"fast": 8.0}, {}),
        CycleEvent(index, 0, {"slow": 64}, {"slow": 20.0}, {}),
        TextEvent(index, task, "live", text_of(task), 0.5, 32, rollouts=8, seconds=2.0),
    )


def write_run(
    runs_dir: Path,
    outcomes: Sequence[Mapping[str, str]] = OUTCOMES,
    stages: Sequence[str] = TASKS,
    held_out: Sequence[str] = (),
) -> Path:
    """A run of as many rows as `outcomes` has; finished if that is every row."""
    command = ("fastslow", "train", "small.yaml")
    made = RunDir.create(
        config(runs_dir, stages, held_out), {"small.yaml": "name: small\n"}, command
    )
    with made as run_dir:
        write_row(run_dir, 0, outcomes[0], stages)
        for index, row in enumerate(outcomes[1:]):
            write_stage(run_dir, index, stages[index])
            write_row(run_dir, index + 1, row, stages)
        if len(outcomes) == len(stages) + 1:
            run_dir.events.append(RunEvent("finished", 100.0))
            run_dir.mark("finished")
        return run_dir.path


def long_sequence(num_tasks: int) -> tuple[list[dict[str, str]], tuple[str, ...]]:
    """Scores and stages of a run that learns every task, and whose last stage harms the first."""
    names = tuple(f"task_{number:02}" for number in range(num_tasks))
    rows = []
    for row in range(num_tasks + 1):
        rows.append({n: "1" * 8 if i < row else "0" * 8 for i, n in enumerate(names)})
    return [*rows[:-1], {**rows[-1], names[0]: "0" * 8}], names


def report_json(run: Path) -> dict[str, Any]:
    """Write the report of a run, without figures and page; what its report.json says."""
    report = build_report(run)
    texts = {"report.md": markdown(report), "report.json": write.report_json(report)}
    write_files(run, {name: text.encode() for name, text in texts.items()})
    data: dict[str, Any] = json.loads(texts["report.json"])
    return data


def terminal(run: Path, width: int = 120, *, full: bool = True) -> str:
    """The report as a terminal of some width shows it."""
    out = io.StringIO()
    Console(file=out, width=width).print(render_terminal(build_report(run), full=full))
    return out.getvalue()


def name_clusters(run: Path, examples: Sequence[str], cluster: str = "page") -> None:
    """Say in every score row of a run that these examples share a source."""
    path = run / "scores.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        row["cluster"] = cluster if row["example"] in examples else None
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
