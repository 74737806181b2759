"""`ablate`: an experiment in several arms over several seeds."""

import shlex
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from fastslow.cli.arguments import Full, Paper, output, resume_hint, split_words
from fastslow.core.errors import ConfigError
from fastslow.core.text import visible

if TYPE_CHECKING:
    from fastslow.results.ablation.launchers.base import Launcher, Share
    from fastslow.results.ablation.plan import Plan
    from fastslow.results.ablation.result import Result

LauncherName: TypeAlias = Literal["local", "ray", "submitit", "print"]
EXTRAS: dict[LauncherName, str] = {"ray": "ray", "submitit": "slurm"}
"""Launchers that need a package of their name, and the extra that brings it."""
DEFAULTS = ("local", None, 0)
"""Values of options that need not be said again."""


def ablate(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="FILE [key=value]…", show_default=False)
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="FOLDER",
            help="Show the comparison in the folder of an ablation; run nothing.",
        ),
    ] = None,
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
    stopped. Meanwhile --from shows what is finished.
    """
    from fastslow.api.ablation import checked_plan, require_models, require_ready
    from fastslow.results.ablation.launchers.base import Share
    from fastslow.results.ablation.plan import plan_table
    from fastslow.results.ablation.search import search_table
    from fastslow.results.report.terminal import render_tables

    words = words or []
    if folder is not None:
        print_result(open_kept(folder, words), folder, None, full=full, paper=paper)
        return
    file, overrides = ablation_file(words)
    require_package(launcher)
    plan = checked_plan(file, overrides)
    tables = [search_table(plan.search)] if plan.search else []
    table = render_tables((), [*tables, plan_table(plan)])
    if launcher != "print" or dry_run:
        output().print(table)
    require_ready(plan)
    if dry_run:
        return
    if launcher == "print":
        print_commands(plan)
        return
    if launcher == "local":
        require_models(plan)
    options = {"launcher": launcher, "workers": workers, "cpus-per-run": cpus_per_run}
    options["gpus-per-run"] = gpus_per_run
    pairs = [(f"--{name}", str(value)) for name, value in options.items() if value not in DEFAULTS]
    again = ["fastslow", "ablate", *words, *(word for pair in pairs for word in pair)]
    share = Share(cpus_per_run, gpus_per_run)
    make_and_compare(
        plan, build_launcher(launcher, share, workers, plan), workers, again, full=full, paper=paper
    )


def open_kept(folder: Path, words: list[str]) -> "Result":
    """The comparison that lies in a folder.

    Raises:
        ConfigError: There are words of another command too.
        CheckpointError: It is not the folder of an ablation.
    """
    from fastslow.api.ablation import open_ablation

    if words:
        raise ConfigError(
            f"ablate --from: shows what is in {visible(str(folder))}, got {visible(words[0])} as "
            "well. Leave one of them out."
        )
    return open_ablation(folder).result


def print_result(
    result: "Result", folder: Path, plan: "Plan | None", *, full: bool, paper: Path | None
) -> None:
    """Print a comparison, whose files are in `folder`, and write it for a paper if asked to."""
    from fastslow.results.ablation.tables import tables
    from fastslow.results.ablation.write import ablation_for_paper, verdict
    from fastslow.results.report.terminal import render_tables

    selection = tables(result)[: None if full else 1]
    output().print(render_tables([verdict(result)], selection))
    if paper is not None:
        ablation_for_paper(plan, result, paper)
        print(f"for a paper: {visible(str(paper))}")
    if result.missing:
        print(f"not finished: {visible(', '.join(result.missing))}")
    if not full and (folder / "ablation.html").is_file():
        print("every table: ablation.html and ablation.md in the ablation folder, or --full")
    elif not full:
        print("every table: --full")
    print(f"ablation folder: {visible(str(folder))}")


def ablation_file(words: list[str]) -> tuple[Path, list[str]]:
    """The one file among these words, and the overrides.

    Raises:
        ConfigError: There is not one.
    """
    files, overrides = split_words(words)
    if len(files) != 1:
        raise ConfigError(f"ablate: expected one ablation file, got {len(files)}. See --help.")
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
    """Print what makes the missing runs, and on the side how many somebody makes already.

    While trials of a search are missing, they are all that can be run.
    """
    from fastslow.results.ablation.execute import commands

    search = plan.search
    if search is not None and len(search.plan.finished()) < len(search.trials):
        plan = search.plan
        print(
            "These are the trials of the search. Once they have ended, the same command prints the "
            "runs of the arms.",
            file=sys.stderr,
        )
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
    from fastslow.api.ablation import make_runs

    with resume_hint(shlex.join(again)):
        ablation = make_runs(plan, launcher, workers)
    print_result(ablation.result, plan.folder, plan, full=full, paper=paper)
    ablation.require_complete()
