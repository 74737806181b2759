"""Shared by commands: kinds of arguments, and output."""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastslow.core.distributed import is_leader
from fastslow.core.errors import CheckpointError, nearest
from fastslow.core.files import is_file, is_folder
from fastslow.core.text import visible
from fastslow.loop.signals import Stopped

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

    from fastslow.results.report import Report

PLAIN_WIDTH = 120
"""Columns of a report that goes to a file or a pipe."""

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object, with the same content, to stdout.")
]
FilesAndOverrides = Annotated[
    list[str], typer.Argument(metavar="FILE [key=value]…", show_default=False)
]


def run_folder(path: Path) -> Path:
    """The run folder that `path` names.

    Raises:
        CheckpointError: There is none; names the nearest ones in it, next to it and in `runs`. Or a
            link in it leads out of it, so that what is printed would be of another file.
    """
    if os.path.lexists(path / "run.json"):
        from fastslow.records.run_folder import require_no_links

        require_no_links(path)
        return path
    if is_file(path / "records.jsonl"):
        raise CheckpointError(
            f"{visible(str(path))}: the folder of an ablation, not of a run. To see it: "
            f"fastslow ablate --from {visible(shlex.quote(str(path)))}"
        )
    folders = [folder for folder in (path, path.parent, Path("runs")) if is_folder(folder)]
    runs = {str(card.parent) for folder in folders for card in folder.glob("*/run.json")}
    around = {str(folder) for folder in path.parents if is_file(folder / "run.json")}
    alike = around or {name for name in runs if path.name and path.name in Path(name).name}
    raise CheckpointError(
        f"{visible(str(path))}: not a run folder (no run.json)."
        f"{nearest(str(path), alike or runs) if alike or runs else ''} Give the folder of a run; "
        "`fastslow runs FOLDER` lists those in a folder."
    )


Full = Annotated[bool, typer.Option("--full", help="Print every table and prompt, not one screen.")]


def paper_folder(path: Path | None) -> Path | None:
    """Where tables and figures for a paper go; `ConfigError` for a run folder, before any work."""
    if path is not None:
        from fastslow.results.render.paper import require_paper_folder

        require_paper_folder(path)
    return path


Paper = Annotated[
    Path | None,
    typer.Option(
        "--paper",
        metavar="FOLDER",
        callback=paper_folder,
        help="Also write there what a paper needs: tables as LaTeX and CSV, figures as PDF with "
        "their data, BibTeX.",
    ),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", callback=run_folder)]


Trust = Annotated[
    bool,
    typer.Option(
        "--trust",
        help="Use the addresses, programs and code that a run folder of somebody else names.",
    ),
]


def split_words(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Files, and overrides: words with `=` that name no existing file."""
    overrides = [word for word in words if "=" in word and not is_file(Path(word))]
    return [Path(word) for word in words if word not in overrides], overrides


def print_report(run: Path, report: "Report | None" = None, *, full: bool = False) -> None:
    """Print the report of a run folder, built here if need be: one screen, or in full.

    Only the leader of several processes does.
    """
    if not is_leader():
        return
    from fastslow.results.report import build_report, render_terminal

    output().print(render_terminal(report or build_report(run), full=full))
    if not full:
        print(f"every table and prompt: fastslow report {visible(shlex.quote(str(run)))} --full")
    if (run / "report.html").exists():
        print(f"to read in a browser: {visible(str(run / 'report.html'))}")
    print(f"run folder: {visible(str(run))}")


def print_json(content: Mapping[str, object]) -> None:
    """Print plain data as one JSON object, keys in their order; ASCII alone, so safe to print."""
    print(json.dumps(content, indent=2, allow_nan=False))


def output() -> "Console":
    """Where tables are printed: as wide as the terminal, or of a fixed width."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def errors() -> "Console":
    """Where progress is shown."""
    from rich.console import Console

    return Console(highlight=False, markup=False, stderr=True)


@contextmanager
def resume_hint(command: str | None = None) -> Iterator[None]:
    """Say how to continue when a signal stops the block: by `command`, or as its notes know."""
    try:
        yield
    except KeyboardInterrupt as stop:
        notes: Sequence[str] = [command] if command else getattr(stop, "__notes__", ())
        for note in notes:
            print(f"\nTo continue: {visible(note)}", file=sys.stderr)
        if isinstance(stop, Stopped):
            raise typer.Exit(stop.exit_code) from stop
        raise


def first_line(doc: str) -> str:
    """The first line of a docstring, safe to print."""
    return visible(next(iter(doc.strip().splitlines()), ""))


def print_parameters(config_class: type["BaseModel"]) -> None:
    """Print the parameters of a plug-in, one a line, with unit and source where they are stated.

    `kind`, by which a configuration names a shipped one, is not among them.
    """
    from fastslow.config.loading.reference import model_keys

    keys = [key for key in model_keys(config_class) if key.name != "kind"]
    for key in keys:
        default = "required" if key.default is None else f"= {key.default}"
        origin = "; ".join(filter(None, (key.unit, key.source)))
        words = f"{key.meaning} [{origin}]" if origin else key.meaning
        print(f"  {key.name} ({key.type}) {visible(default)}: {visible(words)}")
    if not keys:
        print("  none")
