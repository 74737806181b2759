"""`retention`: what a run's stages keep of benchmarks that nobody trained on."""

from pathlib import Path
from typing import Annotated

import typer

from fastslow.cli.arguments import Run, Trust, output
from fastslow.core.text import visible


def retention(
    run: Run,
    suite: Annotated[
        list[str],
        typer.Option(metavar="NAME", help="A benchmark of lm-evaluation-harness; may be repeated."),
    ],
    definitions: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Definitions of your own; Python in them runs with your rights."
        ),
    ] = None,
    stage: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Stage number, from 1; may be repeated (default: all)."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="Examples of each benchmark.")
    ] = None,
    trust: Trust = False,
) -> None:
    """Score benchmarks on the base and on every kept stage.

    Differences are paired by example. The base is loaded once, and each stage proves first that
    its adapter is at work. Writes retention/retention.json into the run folder.
    """
    from fastslow.loop.retention import study_retention
    from fastslow.results.report.terminal import render_tables
    from fastslow.results.retention import retention_table, write_retention

    study = study_retention(
        run,
        suite,
        definitions=definitions,
        stages=stage or (),
        limit=limit,
        trust=trust,
        say=lambda words: print(f"scoring {words}", flush=True),
    )
    output().print(render_tables((), [retention_table(study)]))
    print(f"written: {visible(str(write_retention(study, run)))}")
