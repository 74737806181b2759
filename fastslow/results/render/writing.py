"""Puts finished files into a folder, each whole or not at all."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fastslow.core.errors import ConfigError
from fastslow.core.files import disk_errors, make_folder, write_file
from fastslow.core.text import visible
from fastslow.results.render.drawing import Drawing

FIGURES = "figures"
FORMULA = re.compile(
    r"""
    [=@\t\r]
    | [+-] (?! (?: \d[\d.,]* (?: e[+-]?\d+ )? %? (?: [ ]±[ ]\d[\d.]* )? (?: [ ]\[[-+\d., ]*\] )?
        !? (?: [ ]\([a-z]+\) )? )? \Z )
    """,
    re.VERBOSE,
)
"""Begins a cell that a spreadsheet would compute; a signed number does not, with the interval and
the marks that tables put behind it, but what goes on after it does. Source: OWASP, CSV
injection."""


def require_no_run(option: str, folder: Path, advice: str) -> None:
    """`ConfigError` for a run folder, whose own files those of a command would replace or join."""
    if (folder / "run.json").exists():
        raise ConfigError(
            f"{option} {visible(str(folder))}: a run folder, got run.json in it. {advice}"
        )


def write_figures(folder: Path, drawings: Sequence[Drawing], names: Iterable[str]) -> None:
    """Write figures as PNG and SVG to `figures/`; of `names`, those no longer drawn are removed.

    `CheckpointError` if that fails.
    """
    with disk_errors(folder / FIGURES, "cannot be written", "run the command again"):
        make_folder(folder, FIGURES)
        for name in {*names} - {drawing.name for drawing in drawings}:
            for kind in ("svg", "png"):
                (folder / FIGURES / f"{name}.{kind}").unlink(missing_ok=True)
    files = {f"{FIGURES}/{drawing.name}.svg": drawing.svg.encode() for drawing in drawings}
    pictures = {f"{FIGURES}/{drawing.name}.png": drawing.png for drawing in drawings}
    write_files(folder, files | pictures)


def write_files(folder: Path, files: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Write files into a folder, made if need be, each whole or not at all (`CheckpointError`)."""
    written = []
    for name, content in files.items():
        with disk_errors(folder / name, "cannot be written", "run the command again"):
            written.append(write_file(folder, name, content))
    return tuple(written)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV file: numbers with six decimals, None as an empty cell, text made visible.

    Text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(_csv_cell, header))
    for row in rows:
        writer.writerow(map(_csv_cell, row))
    return out.getvalue()


def _csv_cell(cell: object) -> object:
    if isinstance(cell, float):
        return f"{cell:.6f}"
    if not isinstance(cell, str):
        return cell
    return f"'{visible(cell)}" if FORMULA.match(cell) else visible(cell)
