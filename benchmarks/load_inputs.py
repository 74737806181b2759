"""Run folders and data files of any size, in the form that fastslow itself writes."""

import csv
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastslow.config.models import RunConfig, StageConfig, TaskUse
from fastslow.core.prompts import Candidate, PromptProgram
from fastslow.core.types import SampleScore
from fastslow.measure.scores.guessing import Guess
from fastslow.measure.scores.matrix import headline_policy
from fastslow.records.events import (
    CycleEvent,
    DriftEvent,
    EvaluationEvent,
    GuessEvent,
    PopulationEvent,
    RunEvent,
    ScoreRow,
    TextEvent,
)
from fastslow.records.run_folder import RunDir

ANSWERS = ("Africa", "Asia", "Europe", "North America", "Oceania", "South America")
WORDS = ("amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "knoll")


def make_run(runs_dir: Path, stages: int, examples: int, cycles: int = 2, seed: int = 0) -> Path:
    """A finished run whose score matrix has (stages + 1) x stages cells of `examples` rows each.

    A task is learned in its stage and lost bit by bit after it; both channels have records.
    """
    tasks = tuple(f"task_{number:03}" for number in range(stages))
    config = RunConfig(
        name="load",
        seed=seed,
        runs_dir=str(runs_dir),
        stages=tuple(StageConfig(task=task, cycles=cycles) for task in tasks),
        tasks={task: TaskUse(use="made-up") for task in tasks},
    )
    draws = random.Random(seed)
    with RunDir.create(config, {}, ("fastslow", "train", "load.yaml")) as run:
        chance = {f"example-{number:06}": float(number % 6 == 0) for number in range(examples)}
        for task in tasks:
            run.events.append(GuessEvent(task, Guess("Africa", chance, None, "made up", 6, 6)))
        _measure(run, tasks, 0, examples, draws)
        for stage, task in enumerate(tasks):
            for cycle in range(cycles):
                run.events.append(*_cycle(stage, task, cycle, draws))
            run.events.append(TextEvent(stage, task, "live", _prompt(task, cycles), 0.75, 32, 8, 2))
            _measure(run, tasks, stage + 1, examples, draws)
        run.events.append(RunEvent("finished", 100.0 * stages))
        run.mark("finished")
    return run.path


def copy_runs(run: Path, folder: Path, count: int) -> None:
    """So many copies of a run that differ in name, start and seed."""
    card, config = (json.loads((run / name).read_text()) for name in ("run.json", "config.json"))
    for number in range(count):
        copy = folder / f"{number:04}-load"
        shutil.copytree(run, copy)
        card |= {"run": copy.name, "started": f"2026-01-{1 + number % 28:02}T10:00:00+00:00"}
        (copy / "run.json").write_text(json.dumps(card, indent=2) + "\n")
        config["seed"] = number
        (copy / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        (copy / "seal.json").unlink()
        if (report := copy / "report.json").exists():
            report.touch()  # it is of these records


def write_table(path: Path, rows: int) -> None:
    """A labelled data file of so many distinct rows: CSV, or JSON lines by its name."""
    with path.open("w", newline="", encoding="utf-8") as file:
        if path.suffix == ".csv":
            writer = csv.writer(file)
            writer.writerow(("text", "label"))
            writer.writerows(_examples(rows))
        else:
            file.writelines(
                json.dumps({"text": text, "label": label}) + "\n" for text, label in _examples(rows)
            )


def _examples(rows: int) -> Iterator[tuple[str, str]]:
    draws = random.Random(0)
    for number in range(rows):
        yield f"{' '.join(draws.choices(WORDS, k=12))} {number}", draws.choice(ANSWERS)


def _measure(
    run: RunDir, tasks: Sequence[str], row: int, examples: int, draws: random.Random
) -> None:
    """A row of the matrix with its drift."""
    for number, task in enumerate(tasks):
        run.scores.append(*_cell(run.path.name, tasks, row, number, examples, draws))
        run.events.append(
            DriftEvent(row, task, "kl_fst", 0.01 * row, None, 8, "", se=0.001),
            DriftEvent(row, task, "kl_razor", 0.02 * row, None, 8, "", se=0.001),
        )
    run.events.append(EvaluationEvent(row, examples * len(tasks), 1.5))


def _cell(
    run: str, tasks: Sequence[str], row: int, column: int, examples: int, draws: random.Random
) -> Iterator[ScoreRow]:
    task, policy = tasks[column], headline_policy(tuple(tasks), row, tasks[column])
    text = _prompt(task, 0) if policy == "seed" else _prompt(task, 2)
    since = row - column - 1
    level = 0.2 if since < 0 else max(0.3, 0.9 - 0.05 * since)
    for example in range(examples):
        gold = ANSWERS[example % len(ANSWERS)]
        is_right = draws.random() < level
        answer = gold if is_right else f"{draws.choice(WORDS)} {draws.choice(WORDS)}"
        reason = "correct" if is_right else f'The answer is "{gold}", not "{answer}".'
        sample = SampleScore(
            task,
            f"{task}@1",
            f"example-{example:06}",
            0,
            policy,
            text.text_hash,
            f"weights-{row:04}",
            answer,
            8,
            float(is_right),
            reason,
        )
        yield ScoreRow(run, row, None, sample, gold=f"{example % len(ANSWERS):012}")


def _cycle(
    stage: int, task: str, cycle: int, draws: random.Random
) -> tuple[PopulationEvent, CycleEvent, CycleEvent]:
    scores = {f"train-{number}": float(draws.random() < 0.6) for number in range(32)}
    mean = sum(scores.values()) / len(scores)
    prompts = tuple(Candidate(_prompt(task, cycle + k), scores) for k in (1, 0))
    return (
        PopulationEvent(stage, cycle, task, prompts),
        CycleEvent(stage, cycle, {"fast": 64}, {"fast": 8.0}, {"fast/best_score": mean}),
        CycleEvent(stage, cycle, {"slow": 64}, {"slow": 20.0}, {"slow/reward": mean}),
    )


def _prompt(task: str, number: int) -> PromptProgram:
    return PromptProgram(f"Answer {task}: {' '.join(WORDS[:number])}".strip())
