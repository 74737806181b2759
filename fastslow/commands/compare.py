"""`compare`: what differs between runs, and how sure one may be."""

from pathlib import Path
from typing import Annotated

import typer

from fastslow.commands.words import output, run_folder
from fastslow.text import visible


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN RUN…", help="Run folders; the first is the baseline."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="Also write compare.html, .md and .json, scores.csv and figures/ there.",
        ),
    ] = None,
) -> None:
    """Compare runs with the first one, example by example. Needs no model.

    Differences of final scores, of what was learned and forgotten, of drift and cost, with 95 %
    intervals and exact tests. Runs that differ in nothing but their seed count as one arm.
    """
    from fastslow.report.comparing import compare_runs
    from fastslow.report.comparison_files import write_comparison
    from fastslow.report.comparison_tables import comparison_tables, verdicts
    from fastslow.report.terminal import render_tables

    found = compare_runs([run_folder(run) for run in runs])
    written = () if out is None else write_comparison(found, out)
    output().print(render_tables(verdicts(found), comparison_tables(found)))
    for path in written:
        print(f"written: {visible(str(path))}")
