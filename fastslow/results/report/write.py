"""The report's files: report.html and report.md for people, report.json, scores.csv for programs.

The same run folder gives the same bytes: keys sorted, numbers rounded to six decimals, no clock.
docs/report-schema.md describes the JSON.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from fastslow.core.errors import CheckpointError
from fastslow.core.files import parse_json, read_regular
from fastslow.core.text import shorten
from fastslow.core.types import Json, Metric
from fastslow.measure.stats.intervals import Interval
from fastslow.records.events import ShrinkEvent
from fastslow.records.jsonl import read_scores
from fastslow.results.render.writing import write_figures, write_files
from fastslow.results.report.build import build_report
from fastslow.results.report.cells import Cell, Comparison
from fastslow.results.report.data import SCHEMA_VERSION, Prompt, Report, TaskSummary
from fastslow.results.report.figures import NAMES, figures
from fastslow.results.report.markdown import markdown
from fastslow.results.report.page import page
from fastslow.results.report.sections.texts import read_prompts
from fastslow.results.report.verdict import verdict

DECIMALS = 6
"""Digits after the point of every number written."""


def write_report(run_path: Path) -> tuple[Path, ...]:
    """Write the reports of a run into its folder, replacing older ones.

    report.md, report.json, report.html and scores.csv; every figure of report.html also as PNG and
    SVG in figures/.

    Args:
        run_path: The run folder.

    Returns:
        The four reports.

    Raises:
        CheckpointError: It is no run folder, a record is damaged, or it cannot be written.
        EvaluationError: Recorded scores cannot form a matrix.
    """
    report = build_report(run_path)
    drawings = figures(report)
    rows = read_scores(run_path / "scores.jsonl")
    texts = {
        "report.md": markdown(report),
        "report.json": json_text(report),
        "report.html": page(report, rows, read_prompts(run_path), drawings),
        "scores.csv": scores_csv(report),
    }
    write_figures(run_path, drawings, NAMES)
    return write_files(run_path, {name: text.encode() for name, text in texts.items()})


def recompute_report(run_path: Path) -> tuple[str, ...]:
    """Compute report.json from the raw records again and hold it against the one that is there.

    Args:
        run_path: The run folder, or a copy of it; only read.

    Returns:
        What differs, by path with both values, e.g. `metrics.bwt_gem.value: 0.1 -> 0.2`; nothing
        when both are equal byte by byte.

    Raises:
        CheckpointError: There is no report.json, or a record is missing or damaged.
        EvaluationError: Recorded scores cannot form a matrix.
    """
    path = run_path / "report.json"
    try:
        found = read_regular(path)
        before: Json = parse_json(found)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read, got {error}. Write it with: fastslow report {run_path}"
        ) from error
    text = json_text(build_report(run_path))
    if text.encode() == found:
        return ()
    return tuple(_differences(before, json.loads(text), "")) or ("the layout: not our writer's",)


def _differences(before: Json, after: Json, path: str) -> Iterator[str]:
    """Every leaf that is not equal on both sides."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            yield from _differences(before.get(name), after.get(name), f"{path}.{name}".strip("."))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differences(one, other, f"{path}.{index}")
    elif before != after:
        shown = (shorten(json.dumps(value), 80) for value in (before, after))
        yield f"{path}: {' -> '.join(shown)}"


def json_text(report: Report) -> str:
    """The text of report.json."""
    data = rounded(report_json(report))
    return json.dumps(data, indent=2, sort_keys=True, allow_nan=False) + "\n"


def report_json(report: Report) -> dict[str, Json]:
    """The report as plain data, as docs/report-schema.md describes it."""
    # only after a rollback, so that reports of other runs stay as they are
    deployed: dict[str, Json] = {"deployed": _deployed(report)} if report.deployed else {}
    return deployed | {
        "schema_version": SCHEMA_VERSION,
        "run": report.run,
        "state": report.state,
        "verdict": verdict(report),
        "command": list(report.command),
        "config_hash": report.config_hash,
        "environment": report.environment,
        "tasks": list(report.tasks),
        "stages": [
            {
                "task": stage.task,
                "cycles": stage.cycles,
                "rollouts": stage.rollouts,
                "seconds": stage.seconds,
                "metrics": {name: _metric(metric) for name, metric in stage.metrics.items()},
            }
            for stage in report.stages
        ],
        "scores": [[cell.score for cell in row] for row in report.cells],
        "cells": [[_cell(cell) for cell in row] for row in report.cells],
        "per_task": {summary.task: _task(summary) for summary in report.summaries},
        "metrics": {name: _metric(metric) for name, metric in report.metrics.items()},
        "intervals": {name: _interval(interval) for name, interval in report.intervals.items()},
        "drift": [
            {
                "name": event.name,
                "row": event.row,
                "task": event.task,
                "value": event.value,
                "reason": event.reason,
                "tokens": event.tokens,
                "text_hash": event.text_hash,
                "text": event.text,
                "se": event.se,
            }
            for event in report.drift
        ],
        "kl_fit": {name: _metric(metric) for name, metric in report.kl_fit.items()},
        "shrink": [_shrink(event) for event in report.shrinks],
        "notes": [asdict(note) for note in report.notes],
        "prompts": {prompt.task: _prompt(prompt) for prompt in report.prompts},
        "reflection": report.reflection.to_json() if report.reflection else None,
        "rollouts": report.rollouts,
        "seconds": report.seconds,
        "saving_seconds": report.saving_seconds,
        "seconds_by": report.seconds_by,
        "probes": [probe.to_json() for probe in report.probes],
        "measured": [
            {
                "kind": event.kind,
                "row": event.row,
                "of": event.of,
                "figures": {metric.name: _metric(metric) for metric in event.figures},
                "numbers": event.numbers,
            }
            for event in report.measured
        ],
        "bwt_warning": report.bwt_warning,
        "channel_split": {split.task: split.to_json() for split in report.splits},
        "curves": [curve.to_json() for curve in report.curves],
        "cycles": [asdict(point) for point in report.cycles],
        "evaluation": {
            "frac": report.evaluation_frac,
            "parts": {name: asdict(cost) for name, cost in report.evaluations.items()},
        },
    }


def scores_csv(report: Report) -> str:
    """The text of scores.csv: one line per cell of the matrix; empty where not measured."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(["row", "after", "task", "phase", "prompt", "score", "low", "high", "n"])
    for row, cells in enumerate(report.cells):
        after = report.stage_tasks[row - 1] if row else "base"
        for task, cell in zip(report.tasks, cells, strict=True):
            low, high = (cell.interval.low, cell.interval.high) if cell.interval else (None, None)
            numbers = ["" if x is None else f"{x:.{DECIMALS}f}" for x in (cell.score, low, high)]
            lines.writerow([row, after, task, cell.phase, cell.prompt_policy, *numbers, cell.n])
    return out.getvalue()


def _metric(metric: Metric) -> dict[str, Json]:
    return {"value": metric.value, "reason": metric.reason, "formula": metric.formula}


def _interval(interval: Interval | None) -> Json:
    if interval is None:
        return None
    return {"low": interval.low, "high": interval.high, "method": interval.method}


def _cell(cell: Cell) -> dict[str, Json]:
    return {
        "score": cell.score,
        "interval": _interval(cell.interval),
        "n": cell.n,
        "prompt_policy": cell.prompt_policy,
        "phase": cell.phase,
    }


def _task(summary: TaskSummary) -> dict[str, Json]:
    return {
        "version": summary.version,
        "learned_row": summary.learned_row,
        "base": summary.base.score,
        "learned": summary.learned.score if summary.learned else None,
        "final": summary.final.score,
        "gain": _comparison(summary.gain),
        "change": _comparison(summary.change),
        "net": _comparison(summary.net),
        "terms": {name: _metric(metric) for name, metric in summary.terms.items()},
        "noise_floor": _metric(summary.noise_floor),
    }


def _comparison(comparison: Comparison) -> Json:
    if comparison.difference is None:
        return {"value": None, "reason": comparison.reason}
    plain = asdict(comparison.difference)
    return {"value": plain.pop("mean"), **plain}


def _deployed(report: Report) -> Json:
    if report.deployed is None:
        return None
    event = report.deployed
    scores = {t: c.score for t, c in zip(report.tasks, report.cells[event.row], strict=True)}
    return {
        "row": event.row,
        "before": event.before,
        "at": event.at,
        "weights": event.weights,
        "texts": event.texts,
        "scores": scores,
    }


def _shrink(event: ShrinkEvent) -> dict[str, Json]:
    return {
        "stage": event.stage,
        "task": event.task,
        "share": event.share,
        "factor": event.factor,
        "reason": event.reason,
        "validation": {
            "start": event.validation_start,
            "before": event.validation_before,
            "after": event.validation_after,
            "n": event.validation_n,
        },
        "kl_fst": {"before": event.kl_before, "after": event.kl_after},
        "earlier": {
            task: {"before": score, "after": event.earlier_after[task]}
            for task, score in event.earlier_before.items()
        },
        "rollouts": event.rollouts,
        "seconds": event.seconds,
    }


def _prompt(prompt: Prompt) -> dict[str, Json]:
    program = prompt.program.to_json()
    return {
        "stage": prompt.stage,
        "text_hash": prompt.program.text_hash,
        "instruction": program["instruction"],
        "demonstrations": program["demonstrations"],
        "lineage": program["lineage"],
        "validation_mean": prompt.validation_mean,
        "validation_n": prompt.validation_n,
    }


def rounded(data: Json) -> Json:
    """The same data with every float rounded, so that it prints the same everywhere."""
    if isinstance(data, float):
        assert math.isfinite(data), data
        return round(data, DECIMALS) + 0.0
    if isinstance(data, Mapping):
        return {key: rounded(value) for key, value in data.items()}
    if isinstance(data, Sequence) and not isinstance(data, str):
        return [rounded(value) for value in data]
    return data
