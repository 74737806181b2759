"""Puts finished files into a folder, each whole or not at all."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fastslow.core.errors import CheckpointError
from fastslow.results.render.drawing import Drawing


def write_figures(folder: Path, drawings: Sequence[Drawing], names: Iterable[str]) -> None:
    """Write figures as PNG and SVG; of `names`, those no longer drawn are removed.

    Raises:
        CheckpointError: They cannot be written.
    """
    files = {f"{drawing.name}.svg": drawing.svg.encode() for drawing in drawings}
    write_files(folder, files | {f"{drawing.name}.png": drawing.png for drawing in drawings})
    for name in names:
        for kind in ("svg", "png"):
            if f"{name}.svg" not in files:
                (folder / f"{name}.{kind}").unlink(missing_ok=True)


def write_files(folder: Path, files: Mapping[str, bytes]) -> tuple[Path, ...]:
    """Write files into a folder, each whole or not at all; the folder is made if need be.

    Raises:
        CheckpointError: One cannot be written.
    """
    written = []
    for name, content in files.items():
        path = folder / name
        beside = folder / f"{name}.tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            beside.unlink(missing_ok=True)  # it may be a link to somewhere else
            beside.write_bytes(content)
            beside.replace(path)
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be written, got {error.strerror}. "
                "Check free space and permissions, then run the command again."
            ) from error
        written.append(path)
    return tuple(written)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A CSV file: numbers with six decimals, None as an empty cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow(f"{cell:.6f}" if isinstance(cell, float) else cell for cell in row)
    return out.getvalue()
