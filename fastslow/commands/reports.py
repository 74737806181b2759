"""`report`, `probe` and `prompts`: what is done with a run folder."""

from typing import Annotated

import typer

from fastslow.commands.words import Run, print_report
from fastslow.errors import CheckpointError
from fastslow.processes import is_leader
from fastslow.text import visible


def report(
    run: Run,
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute",
            help="Compute every figure from the raw records again, write nothing, and fail if "
            "report.json says anything else.",
        ),
    ] = False,
) -> None:
    """Write a run's forgetting report again, and print it. Needs no model."""
    from fastslow.report import recompute_report, write_report

    if recompute:
        if differences := recompute_report(run):
            raise CheckpointError(
                f"{run / 'report.json'}: not what the records say, got {len(differences)} "
                f"differences, report.json -> recomputed: {visible('; '.join(differences[:5]))}. "
                "Records or report were edited, or another version wrote it; write it anew with: "
                f"fastslow report {run}"
            )
        print(f"{visible(str(run / 'report.json'))}: byte-identical when recomputed from records")
        return
    write_report(run)
    print_report(run)


def probe(
    run: Run,
    task: Annotated[
        str, typer.Option(metavar="NAME", help="A task that no stage of the run visits.")
    ],
    stage: Annotated[
        int | None, typer.Option(metavar="N", help="Whose weights, from 1; the last one's if left.")
    ] = None,
) -> None:
    """Measure whether a run's weights can still learn.

    Trains on a new task from these weights and from the base, then reports. Settings are those of
    the run's `probe` section, or its defaults; the curves are kept in the run folder under probe/.
    """
    from fastslow.launch import probe as start
    from fastslow.report import write_report

    start(run, task, stage)
    if is_leader():
        write_report(run)
    print_report(run)


def prompts(
    run: Run,
    diff: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="Show how two texts differ: hashes, or stage-1, stage-2."),
    ] = None,
    trace: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Show where a text came from.")
    ] = None,
) -> None:
    """Show a run's texts with their scores.

    Best first, after every fast phase; `*` marks the text that its stage deployed.
    """
    from fastslow.report.prompts import diff_lines, overview_lines, read_prompts, trace_lines

    history = read_prompts(run)
    if diff is not None:
        lines = diff_lines(history, *diff)
    elif trace is not None:
        lines = trace_lines(history, trace)
    else:
        lines = overview_lines(history)
    for line in lines:
        print(line)
