"""`runs`: what there is in a folder of runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fastslow.errors import CheckpointError
from fastslow.text import visible

Folder = Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where runs were made.")]


def runs(folder: Folder = Path("runs")) -> None:
    """List runs: state, stages done, score so far, start, size.

    States: running, finished, failed, interrupted (a signal; resume goes on), died (killed; resume
    goes on). The score is the mean over all tasks in the last whole row of the matrix.
    """
    from fastslow.report.listing import list_runs, listing_lines

    if not folder.is_dir():
        raise CheckpointError(
            f"{folder}: no such folder. Give the one that holds runs: `runs_dir` of their "
            "configuration."
        )
    found = list_runs(folder)
    if not found:
        print(f"{visible(str(folder))}: no runs")
        return
    for line in listing_lines(found):
        print(line)
    for run in found:
        if run.reason:
            print(f"{visible(run.path.name)}: {visible(run.reason)}", file=sys.stderr)
