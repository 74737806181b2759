"""The report's files: report.html and report.md for people, report.json, scores.csv for programs.

The same run folder gives the same bytes. docs/report-schema.md describes the JSON.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from fastslow.core.errors import CheckpointError
from fastslow.core.files import parse_json, read_regular
from fastslow.core.text import shorten
from fastslow.core.types import Json
from fastslow.results.reading import read_object
from fastslow.results.render.encoding import json_text
from fastslow.results.render.paper import write_paper
from fastslow.results.render.writing import write_figures, write_files
from fastslow.results.report.build import SECTIONS, build_report
from fastslow.results.report.markdown import markdown
from fastslow.results.report.page import page
from fastslow.results.report.section import Report
from fastslow.results.report.sections.scores import Scores
from fastslow.results.report.verdict import verdict

SCHEMA_VERSION = 1
"""Raised when a key of report.json changes its meaning or goes."""
DRAWING_NAMES = tuple(section.drawing_name for section in SECTIONS if section.drawing_name)
"""Stems of the figures of every report, so that old ones can be removed."""


def write_report(run_path: Path) -> tuple[Path, ...]:
    """Write figures/ and the four reports, whose paths it returns, into a run's folder.

    Raises:
        CheckpointError: It is not a run folder, a record is damaged, or it cannot be written.
        EvaluationError: Recorded scores cannot form a matrix.
    """
    return save_report(build_report(run_path))


def save_report(report: Report) -> tuple[Path, ...]:
    """As `write_report`, of a report that was built; `CheckpointError` if it cannot be written."""
    drawings = report.drawings()
    texts = {
        "report.md": markdown(report),
        "report.json": report_json(report),
        "report.html": page(report, drawings),
        "scores.csv": report.section(Scores).csv(),
    }
    write_figures(report.path, drawings, DRAWING_NAMES)
    return write_files(report.path, {name: text.encode() for name, text in texts.items()})


def report_for_paper(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write tables, figures with their data and sources of a run; errors as of `write_paper`."""
    configs = [read_object(report.path / "config.json")]
    return write_paper(folder, report.tables(), report.drawings(), configs)


def recompute_report(run_path: Path) -> tuple[str, ...]:
    """Compute report.json from the raw records again and compare it with the file.

    Every difference has its path and both values, e.g. `metrics.bwt_gem.value: 0.1 -> 0.2`; none
    when both are equal byte by byte.

    Raises:
        CheckpointError: There is no report.json, or a record is missing or damaged.
        EvaluationError: Recorded scores cannot form a matrix.
    """
    path = run_path / "report.json"
    try:
        content = read_regular(path)
        before: Json = parse_json(content)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read, got {error}. Write it with: fastslow report {run_path}"
        ) from error
    text = report_json(build_report(run_path))
    if text.encode() == content:
        return ()
    return tuple(_differences(before, json.loads(text), "")) or ("the layout: not our writer's",)


def _differences(before: Json, after: Json, path: str) -> Iterator[str]:
    """Every leaf that is not equal on both sides."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted({*before, *after}):
            yield from _differences(before.get(name), after.get(name), f"{path}.{name}".strip("."))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from _differences(old, new, f"{path}.{index}")
    elif before != after:
        values = (shorten(json.dumps(value), 80) for value in (before, after))
        yield f"{path}: {' -> '.join(values)}"


def report_json(report: Report) -> str:
    """The text of report.json, as docs/report-schema.md describes it."""
    data: dict[str, object] = {
        "schema_version": SCHEMA_VERSION,
        "run": report.card.run,
        "state": report.card.state,
        "verdict": verdict(report),
        "command": report.card.command,
        "config_hash": report.card.config_hash,
        "tasks": report.card.tasks,
    }
    for section in report.sections:
        data |= section.to_json()
    return json_text(data)
