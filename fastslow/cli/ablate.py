"""`ablate`: an experiment in several arms over several seeds."""

import shlex
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from fastslow.cli.arguments import FilesAndOverrides, Full, Paper, output, resume_hint, split_words
from fastslow.core.errors import AblationError, ConfigError
from fastslow.core.text import visible

if TYPE_CHECKING:
    from fastslow.results.ablation.launchers.base import Launcher, Share
    from fastslow.results.ablation.plan import Plan

LauncherName: TypeAlias = Literal["local", "ray", "submitit", "print"]
EXTRAS: dict[LauncherName, str] = {"ray": "ray", "submitit": "slurm"}
"""Launchers that need a package of their name, and the extra that brings it."""
DEFAULTS = ("local", None, 0)
"""Values of options that need not be said again."""


def ablate(
    words: FilesAndOverrides,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Runs at the same time (default: 1; on a cluster, all)."
        ),
    ] = None,
    launcher: Annotated[
        LauncherName,
        typer.Option(
            help="What makes the runs: processes here, tasks of Ray, jobs of Slurm; or print their "
            "commands, to be run anywhere on the same folder."
        ),
    ] = "local",
    cpus_per_run: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Cores of a run (default: a share; on a cluster, 1)."
        ),
    ] = None,
    gpus_per_run: Annotated[
        int, typer.Option(min=0, max=1, metavar="N", help="GPUs of a run, for itself alone.")
    ] = 0,
    full: Full = False,
    paper: Paper = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show runs, budgets and what is finished; run none.")
    ] = False,
) -> None:
    """Run every arm of FILE under every seed, then compare.

    Finished runs are skipped and broken ones resumed, so the same command continues where it
    stopped.
    """
    from fastslow.loop.preflight import require_earned
    from fastslow.results.ablation import read_plan
    from fastslow.results.ablation.launchers.base import Share
    from fastslow.results.ablation.plan import plan_table
    from fastslow.results.ablation.records import require_same_data
    from fastslow.results.report.terminal import render_tables

    file, overrides = ablation_file(words)
    require_package(launcher)
    plan = read_plan(file, overrides)
    table = render_tables((), [plan_table(plan)])
    if launcher != "print" or dry_run:
        output().print(table)
    finished = plan.finished()
    require_same_data(plan, finished)
    for run in plan.runs:
        if run.name not in finished:
            require_earned(run.config)
    if dry_run:
        return
    if launcher == "print":
        print_commands(plan)
        return
    options = {"launcher": launcher, "workers": workers, "cpus-per-run": cpus_per_run}
    options["gpus-per-run"] = gpus_per_run
    pairs = [(f"--{name}", str(value)) for name, value in options.items() if value not in DEFAULTS]
    again = ["fastslow", "ablate", *words, *(word for pair in pairs for word in pair)]
    share = Share(cpus_per_run, gpus_per_run)
    make_and_compare(
        plan, build_launcher(launcher, share, workers, plan), workers, again, full=full, paper=paper
    )


def ablation_file(words: list[str]) -> tuple[Path, list[str]]:
    """The one ablation file among these words, and the overrides.

    Raises:
        ConfigError: There is not one, or it is of another kind.
    """
    from fastslow.results.ablation import is_ablation

    files, overrides = split_words(words)
    if len(files) != 1:
        raise ConfigError(f"ablate: expected one ablation file, got {len(files)}.")
    file = visible(str(files[0]))
    if not is_ablation(files[0]):
        raise ConfigError(
            f"{file}: not an ablation file (no arms). To run one experiment: fastslow train {file}"
        )
    return files[0], overrides


def require_package(launcher: LauncherName) -> None:
    """`ConfigError` unless the package of a launcher is installed."""
    extra = EXTRAS.get(launcher)
    if extra and find_spec(launcher) is None:
        raise ConfigError(
            f"--launcher {launcher}: needs the package {launcher}, which is not installed. Install "
            f"it with: pip install 'fastslow[{extra}]'"
        )


def build_launcher(
    launcher: LauncherName, share: "Share", workers: int | None, plan: "Plan"
) -> "Launcher":
    """The launcher of that name; errors as of its class."""
    if launcher == "ray":
        from fastslow.results.ablation.launchers.ray import RayLauncher

        return RayLauncher(share)
    if launcher == "submitit":
        from fastslow.results.ablation.launchers.slurm import SlurmLauncher

        return SlurmLauncher(share, plan.folder)
    from fastslow.results.ablation.launchers.local import LocalLauncher

    return LocalLauncher(share, workers or 1)


def print_commands(plan: "Plan") -> None:
    """Print what makes the missing runs, and on the side how many somebody makes already."""
    from fastslow.results.ablation.execute import commands

    for line in commands(plan):
        print(line)
    states = Counter(status.state for _, status in plan.statuses())
    if states["running"]:
        print(
            f"Not listed, since other processes make them: {states['running']} runs.",
            file=sys.stderr,
        )


def make_and_compare(
    plan: "Plan",
    launcher: "Launcher",
    workers: int | None,
    again: list[str],
    *,
    full: bool = False,
    paper: Path | None = None,
) -> None:
    """Make the missing runs, then print and write the comparison; `again` continues it.

    Raises:
        AblationError: Some did not come to their end.
    """
    from rich.console import Console

    from fastslow.core.progress import Progress
    from fastslow.loop.signals import StopRequest
    from fastslow.results.ablation.execute import execute
    from fastslow.results.ablation.tables import tables
    from fastslow.results.ablation.write import ablation_for_paper, verdict, write_ablation
    from fastslow.results.report.terminal import render_tables

    def progress(total: float) -> Progress:
        return Progress(total, Console(file=sys.stderr, highlight=False))

    with resume_hint(shlex.join(again)), StopRequest().catching():
        failures = execute(plan, launcher, workers, progress)
    result = write_ablation(plan)
    selection = tables(result)[: None if full else 1]
    output().print(render_tables([verdict(result)], selection))
    if paper is not None:
        ablation_for_paper(plan, result, paper)
        print(f"for a paper: {visible(str(paper))}")
    if not full:
        print("every table: ablation.html and ablation.md in the ablation folder, or --full")
    print(f"ablation folder: {visible(str(plan.folder))}")
    if failures:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in failures.items())
        raise AblationError(
            f"ablate: {len(failures)} of {len(plan.runs)} runs did not end well, got {reasons}. "
            "Their logs are in the ablation folder under logs/; the same command tries them again. "
            "Remove the folder of a run that nothing can resume."
        )
