"""`watch` and `serve`: runs while they work, from their folders alone."""

import importlib.util
import sys
from pathlib import Path
from typing import Annotated

import typer

from fastslow.cli.arguments import Run
from fastslow.core.errors import CheckpointError, ConfigError
from fastslow.core.files import is_folder
from fastslow.core.text import visible

PORT = 8765


def watch(
    run: Run,
    once: Annotated[bool, typer.Option("--once", help="Print it once, and end.")] = False,
    interval_s: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", min=0.2, help="Between two looks.")
    ] = 1.0,
) -> None:
    """Watch a run: stage, phase, scores, reward, time, last sample.

    Reads its folder only, so it works from another terminal while the run trains; ends with it. A
    run that has ended, and output that is no terminal, is shown once.
    """
    from rich.console import Console

    from fastslow.results.live.snapshot import RunWatch
    from fastslow.results.live.terminal import watch as show

    snapshot = show(RunWatch(run), Console(highlight=False, markup=False), interval_s, once)
    if snapshot.card is None:
        raise CheckpointError(f"{run}: cannot be read, got {snapshot.reason}")


def serve(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where runs are made.")] = Path(
        "runs"
    ),
    port: Annotated[
        int, typer.Option("--port", min=1, max=65535, help="Of 127.0.0.1; no other is served.")
    ] = PORT,
) -> None:
    """Show the runs of a folder in a browser, on this machine alone.

    Lists runs and ablations with their states; of a run the curves, samples, prompts and report as
    far as it is; compares those that are chosen. Reads files only; Ctrl-C ends it.
    """
    if not is_folder(folder):
        raise CheckpointError(
            f"{folder}: no such folder. Give the one that holds runs: `runs_dir` of their "
            "configuration."
        )
    if missing := [name for name in ("starlette", "uvicorn") if not importlib.util.find_spec(name)]:
        raise ConfigError(
            f"serve: needs the package {' and '.join(missing)}, which is not installed. Install "
            "with: pip install 'fastslow[serve]'"
        )
    from fastslow.results.live.server import bound, run_server

    with bound(port) as socket:
        address = f"http://127.0.0.1:{port}"
        print(f"{visible(str(folder))} at {address} (Ctrl-C ends it)", file=sys.stderr, flush=True)
        run_server(folder, socket)
