"""`train` and `resume`."""

from typing import Annotated

import typer

from fastslow.cli.arguments import (
    FilesAndOverrides,
    Full,
    Run,
    Trust,
    print_report,
    resume_hint,
    split_words,
)
from fastslow.core.errors import ConfigError


def train(words: FilesAndOverrides, full: Full = False) -> None:
    """Take a model through the stages of FILE, then report.

    Makes a run folder with a resume point after every cycle, and prints the forgetting report.
    """
    from fastslow.api.runs import start

    files, overrides = split_words(words)
    if len(files) != 1:
        raise ConfigError(
            f"train: expected one configuration file, got {len(files)}. Combine files with "
            "`extends`, or give key=value overrides."
        )
    with resume_hint():
        folder = start(files[0], overrides, ["fastslow", "train", *words])
    print_report(folder, full=full)


def resume(
    run: Run,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[key=value]…", help="Changes of keys that alter no result: trackers, measures."
        ),
    ] = None,
    full: Full = False,
    trust: Trust = False,
) -> None:
    """Continue a run from its last resume point, then report."""
    from fastslow.api.runs import go_on

    with resume_hint():
        folder = go_on(run, overrides or [], trust)
    print_report(folder, full=full)
