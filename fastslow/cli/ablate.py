"""`ablate`: an experiment in several arms over several seeds."""

import shlex
import sys
from typing import Annotated

import typer

from fastslow.cli.arguments import FilesAndOverrides, output, resume_hint, split_words
from fastslow.core.errors import AblationError, ConfigError
from fastslow.core.text import visible


def ablate(
    words: FilesAndOverrides,
    workers: Annotated[int, typer.Option(min=1, metavar="N", help="Runs at the same time.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show runs, budgets and what is finished; run none.")
    ] = False,
) -> None:
    """Run every arm of FILE under every seed, then compare.

    Finished runs are skipped and broken ones resumed, so the same command continues where it
    stopped.
    """
    from fastslow.loop.preflight import require_earned
    from fastslow.results.ablation import is_ablation, read_plan
    from fastslow.results.ablation.plan import plan_table
    from fastslow.results.ablation.records import require_same_data
    from fastslow.results.report.terminal import render_tables

    files, overrides = split_words(words)
    if len(files) != 1:
        raise ConfigError(f"ablate: expected one ablation file, got {len(files)}.")
    file = visible(str(files[0]))
    if not is_ablation(files[0]):
        raise ConfigError(
            f"{file}: not an ablation file (no arms). To run one experiment: fastslow train {file}"
        )
    plan = read_plan(files[0], overrides)
    output().print(render_tables((), [plan_table(plan)]))
    finished = plan.finished()
    require_same_data(plan, finished)
    for run in plan.runs:
        if run.name not in finished:
            require_earned(run.config)
    if dry_run:
        return
    from rich.console import Console

    from fastslow.core.progress import Progress
    from fastslow.loop.signals import StopRequest
    from fastslow.results.ablation.execute import execute
    from fastslow.results.ablation.tables import tables
    from fastslow.results.ablation.write import write_ablation

    def progress(total: float) -> Progress:
        return Progress(total, Console(file=sys.stderr, highlight=False))

    with resume_hint(shlex.join(["fastslow", "ablate", *words])), StopRequest().catching():
        failures = execute(plan, workers, progress)
    result = write_ablation(plan)
    output().print(render_tables((), tables(result)))
    print(f"ablation folder: {visible(str(plan.folder))}")
    if failures:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in failures.items())
        raise AblationError(
            f"ablate: {len(failures)} of {len(plan.runs)} runs did not end well, got {reasons}. "
            "Their logs are in the ablation folder under logs/; the same command tries them again. "
            "Remove the folder of a run that nothing can resume."
        )
