"""`runs`: what there is in a folder of runs."""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from fastslow.errors import CheckpointError
from fastslow.files import is_folder
from fastslow.text import visible

Folder = Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where runs were made.")]


def runs(folder: Folder = Path("runs")) -> None:
    """List runs: state, stages done, score so far, start, size.

    Runs of an ablation lie a folder deeper and are only counted; give that folder to list them.
    States: running, finished, failed, interrupted (a signal; resume goes on), died (killed; resume
    goes on). The score is the mean over all tasks in the last whole row of the matrix.
    """
    from fastslow.report.listing import list_runs, listing_lines

    if not is_folder(folder):
        raise CheckpointError(
            f"{folder}: no such folder. Give the one that holds runs: `runs_dir` of their "
            "configuration."
        )
    found = list_runs(folder)
    deeper = Counter(card.parent.parent for card in folder.glob("*/*/run.json"))
    if not found and not deeper:
        print(f"{visible(str(folder))}: no runs")
    for line in listing_lines(found) if found else ():
        print(line)
    for inner, count in sorted(deeper.items()):
        print(f"in {visible(str(inner))}: {count} run{'s' * (count > 1)}")
    for run in found:
        if run.reason:
            print(f"{visible(run.path.name)}: {visible(run.reason)}", file=sys.stderr)
