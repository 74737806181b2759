"""records.jsonl: all that an ablation's statistics rest on, in one file that outlives its runs.

The first line is the ablation, every other line a run with its score on every example. There are no
texts, paths, clocks or machines in it, so it can be published where the texts of a task cannot.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from fastslow.config.ablation import AblationConfig
from fastslow.core.decode import shaped
from fastslow.core.errors import CheckpointError, FastSlowError
from fastslow.core.files import damage_errors, parse_json, read_regular
from fastslow.measure.scores.curves import LearningCurve
from fastslow.measure.scores.guessing import Guess
from fastslow.measure.scores.matrix import ScoreMatrix
from fastslow.measure.scores.plasticity import Probe
from fastslow.results.ablation.records import Point, RunRecord
from fastslow.results.ablation.result import Result, make_result
from fastslow.results.ablation.search import TrialScore

RECORDS_VERSION = 1
"""Raised when a key of records.jsonl changes its meaning or goes."""
AGAIN = "Run `fastslow ablate` again where the runs are; it writes the file again."


def records_jsonl(result: Result) -> str:
    """The text of records.jsonl."""
    head = {
        "records_version": RECORDS_VERSION,
        "config": result.config.model_dump(mode="json"),
        "planned": {arm.arm: arm.planned for arm in result.arms},
        "missing": list(result.missing),
        **({"search": [asdict(trial) for trial in result.search]} if result.search else {}),
    }
    lines = [head, *map(plain_record, result.records)]
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)


def read_records_file(path: Path) -> Result:
    """The result of an ablation, from its records.jsonl alone.

    Raises:
        CheckpointError: A line is damaged or of another version; names it.
    """
    with _naming(path, 1):
        first, *rest = read_regular(path).decode().splitlines()
        head = parse_json(first)
        if head["records_version"] != RECORDS_VERSION:
            raise ValueError(f"records_version {head['records_version']}")
        config = AblationConfig.model_validate(head["config"])
        planned = Counter(_PLANNED.validate_python(head["planned"]))
        missing = tuple(map(str, head["missing"]))
        search = tuple(shaped(TrialScore, trial) for trial in head.get("search", ()))
    records = []
    for number, line in enumerate(rest, start=2):
        with _naming(path, number):
            records.append(_record(parse_json(line)))
    with damage_errors(path, "its records do not fit together", AGAIN):
        return make_result(config, records, planned, missing, search)


@contextmanager
def _naming(path: Path, line: int) -> Iterator[None]:
    """Say which line of which file something is wrong with."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError, FastSlowError) as error:
        raise CheckpointError(
            f"{path}:{line}: not a line of records of version {RECORDS_VERSION}, got {error}. "
            f"{AGAIN}"
        ) from error


def plain_record(run: RunRecord) -> dict[str, Any]:
    """A run as plain data: a line of records.jsonl."""
    return {
        "arm": run.arm,
        "seed": run.seed,
        "order": run.order,
        "config_hash": run.config_hash,
        "tasks": run.matrix.tasks,
        "stages": run.matrix.stages,
        "scores": run.matrix.rows,
        "noise_floor": run.noise_floor,
        "rollouts": dict(run.rollouts),
        "cells": [[row, task, dict(scores)] for (row, task), scores in run.cells.items()],
        "curves": [[[p.slow, p.total, dict(p.scores)] for p in curve] for curve in run.curves],
        "kl_fst": [[row, task, value] for (row, task), value in run.kl.items()],
        "probe": run.probe
        and {
            "tuned": list(map(_plain_curve, run.probe.tuned)),
            "base": list(map(_plain_curve, run.probe.base)),
            "adapter": run.probe.adapter,
        },
        "clusters": {task: dict(by_example) for task, by_example in run.clusters.items()},
        **({"guesses": _plain_guesses(run.guesses)} if run.guesses else {}),
    }


def _plain_guesses(guesses: Mapping[str, Guess]) -> dict[str, Any]:
    """What guessing scores, without the text of the answer."""
    return {task: asdict(replace(guess, answer="")) for task, guess in guesses.items()}


def _plain_curve(curve: LearningCurve) -> dict[str, Any]:
    return {"unit": curve.unit, "at": curve.counts, "scores": curve.scores}


@dataclass(frozen=True)
class _Curve:
    unit: Literal["steps", "rollouts"]
    at: tuple[int, ...]
    scores: tuple[tuple[float, ...], ...]

    def curve(self) -> LearningCurve:
        return LearningCurve(self.unit, self.at, self.scores)


@dataclass(frozen=True)
class _Probe:
    tuned: tuple[_Curve, ...]
    base: tuple[_Curve, ...]
    adapter: Literal["merge", "continue"]

    def probe(self) -> Probe:
        tuned, base = (tuple(map(_Curve.curve, part)) for part in (self.tuned, self.base))
        return Probe(tuned, base, self.adapter)


@dataclass(frozen=True)
class _Line:
    """What `plain_record` gives, checked against these types."""

    arm: str
    seed: int
    order: str | None
    config_hash: str
    tasks: tuple[str, ...]
    stages: tuple[str, ...]
    scores: tuple[tuple[float | None, ...], ...]
    noise_floor: float
    rollouts: dict[str, int]
    cells: tuple[tuple[int, str, dict[str, float]], ...]
    curves: tuple[tuple[tuple[int, int, dict[str, float]], ...], ...]
    kl_fst: tuple[tuple[int, str, float], ...]
    probe: _Probe | None
    clusters: dict[str, dict[str, str]] = field(default_factory=dict)
    """Files of older versions have none."""
    guesses: dict[str, Any] = field(default_factory=dict)


_LINE, _PLANNED = TypeAdapter(_Line), TypeAdapter(dict[str, int])


def _record(plain: object) -> RunRecord:
    line = _LINE.validate_python(plain)
    return RunRecord(
        arm=line.arm,
        seed=line.seed,
        order=line.order,
        config_hash=line.config_hash,
        matrix=ScoreMatrix(line.tasks, line.stages, line.scores),
        noise_floor=line.noise_floor,
        cells={(row, task): scores for row, task, scores in line.cells},
        curves=tuple(tuple(Point(*point) for point in curve) for curve in line.curves),
        rollouts=line.rollouts,
        kl={(row, task): value for row, task, value in line.kl_fst},
        probe=line.probe.probe() if line.probe else None,
        clusters=line.clusters,
        guesses={task: shaped(Guess, guess) for task, guess in line.guesses.items()},
    )
