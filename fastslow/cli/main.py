"""The command line: parse, call one function, print, translate errors into exit codes.

Everything heavy is imported inside the command that needs it, so that `--help` and `check` answer
at once. Exit codes: 0 done, 1 the run failed, 2 the input is wrong, 3 the gate says no, 130 or 143
a signal stopped it.
"""

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from typing import Annotated, TextIO, cast

import typer

from fastslow.api.words import PROCESS_SWITCHES
from fastslow.cli import (
    ablate,
    check,
    demo,
    deploy,
    diff,
    init,
    models,
    remedies,
    report,
    retention,
    signals,
    tasks,
    train,
    watch,
)
from fastslow.cli.streams import LastingStream
from fastslow.core.errors import FastSlowError
from fastslow.core.library_switches import set_switches
from fastslow.core.text import shorten

STOPPED = {130: "Interrupted.", 143: "Terminated."}
"""What is said at exit codes after Ctrl-C and SIGTERM, which are those of shells."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""What a full disk or a used-up quota says where the output goes to; elsewhere it is translated."""

LONGEST_LINE = 2000
"""Characters of a line of an error; more is no help and may be an attack."""

app = typer.Typer(
    help="Continual learning for language models through two channels, with an honest forgetting "
    "report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(tasks.app, name="tasks")
app.add_typer(remedies.app, name="remedies")
app.add_typer(models.app, name="models")
for command in (
    demo.demo,
    init.init,
    check.check,
    train.train,
    train.resume,
    report.runs,
    watch.watch,
    watch.serve,
    report.report,
    report.probe,
    report.track,
    report.prompts,
    signals.signals,
    retention.retention,
    ablate.ablate,
    deploy.gate,
    deploy.rollback,
    deploy.export,
    deploy.push,
    report.compare,
    diff.diff,
):
    app.command()(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default the process's own, and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _prepare_process()
    try:
        out, err = LastingStream(sys.stdout), LastingStream(sys.stderr)
        with redirect_stdout(cast(TextIO, out)), redirect_stderr(cast(TextIO, err)):
            code = _run(words)
            out.flush()
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere
        print("No space left where the output goes to; make room, or print it.", file=sys.stderr)
        return 1
    return code


def _run(words: Sequence[str]) -> int:
    """Carry out the command in `words`; returns its exit code."""
    show_traceback = "--traceback" in words
    try:
        app(args=[word for word in words if word != "--traceback"], prog_name="fastslow")
    except FastSlowError as error:
        if show_traceback:
            traceback.print_exc()
        else:
            print(printable(error), file=sys.stderr)
        return error.exit_code
    except SystemExit as end:
        if end.code in STOPPED:
            print(STOPPED[end.code], file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def printable(error: FastSlowError) -> str:
    """The lines of an error, which may quote anything, as they are safe to print."""
    return "\n".join(shorten(line, LONGEST_LINE) for line in str(error).split("\n"))


@app.callback(invoke_without_command=True)
def fastslow(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    show_traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error comes from; goes anywhere.")
    ] = False,
) -> None:
    """Options of the program itself."""
    if version:
        from importlib.metadata import version as version_of

        print(f"fastslow {version_of('fastslow')}")


def _prepare_process() -> None:
    """Settings that must stand before libraries are imported, and streams that take any text."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    set_switches(PROCESS_SWITCHES)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
