"""`init`: a first configuration of one's own, out of data files."""

import json
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fastslow.core.errors import ConfigError, TaskError, nearest
from fastslow.core.text import shorten, visible

MODEL = "smollm2-135m-instruct"
TEMPLATE = """\
# Question: what does the model learn of {tasks}, and what does it keep of it?
# Check:    fastslow check {file}
#   data, minutes, memory; docs/config.md has every key
# Command:  fastslow train {file}
name: {name}
model:
  name: {model}  # of `fastslow models list`, a local folder, or a hub id
tasks:
{entries}\
stages:  # visits in training order; after each, all tasks are scored
{stages}\
cycle:
  optimizer_steps: 5  # updates of the weights after each evolution of the prompts
  problems: 8  # training examples of one update
  pool: {pool}  # training examples set aside as demonstrations
fast:
  kind: demos  # prompts with demonstrations, searched at random; no second model
  population: 4  # prompts kept
  demonstrations: 4  # in a prompt, at most
  metric_calls: 320  # completions in one evolution, at most
slow:
  kind: grpo  # or sft, which learns from the answers themselves
  group: 8  # completions drawn of each problem
  lr: 3e-4
evaluation:
  test_examples: 64  # of every task; more make intervals narrower, and take longer
  validation_examples: 32
"""
ENTRY = """\
  {name}:
    use: text_classification
    params:
      data: {data}
      text_column: {question}
      label_column: {answer}
      max_tokens: {max_tokens}  # of an answer, the stop token included
"""


@dataclass(frozen=True)
class _Source:
    """Data of a task with its columns, as the template has them."""

    name: str
    data: str
    question: str
    answer: str
    max_tokens: int
    train: int


def init(
    data: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Data of a task; may be repeated, one stage for each."),
    ] = None,
    question: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column that holds what is asked.")
    ] = None,
    answer: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column that holds the right answer.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"The base model (default: {MODEL}).")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A new file (default: NAME.yaml).")
    ] = None,
) -> None:
    """Write a first configuration for data of your own.

    Looks into the data, proposes columns, asks on a terminal for what is not given, and checks what
    it wrote. Data is a file or a folder as `fastslow tasks show text_classification` says.
    """
    from fastslow.api.checks import inspect_file

    asks = sys.stdin.isatty()
    if not data and not asks:
        raise ConfigError("init: no data given. Example: fastslow init --data tickets.csv")
    paths = data or [typer.prompt("Data (a file, a folder, or a hub id)")]
    sources = [_source(path, question, answer, asks) for path in paths]
    if len({source.name for source in sources}) < len(sources):
        names = ", ".join(source.name for source in sources)
        raise ConfigError(f"init --data: tasks of one name, got {names}. Rename a file or folder.")
    file = out or Path(f"{sources[0].name}.yaml")
    if asks:
        model = model or typer.prompt("Base model", default=MODEL)
        file = out or Path(typer.prompt("File to write", default=str(file)))
    _write(file, _text(file, sources, model or MODEL))
    try:
        result = inspect_file(file, [])
    except ConfigError:
        file.unlink()
        raise
    print(f"written: {visible(str(file))}")
    for source in sources:
        columns = f"question {source.question!r}, answer {source.answer!r}"
        print(f"  {source.name}: {visible(columns)}, {source.train} training examples")
    for note in result.notes:
        print(f"note: {visible(note)}")
    print(f"next: fastslow check {visible(shlex.quote(str(file)))}")


def _source(data: str, question: str | None, answer: str | None, asks: bool) -> _Source:
    """Open data and settle its columns.

    Raises:
        ConfigError: A column is not there, or cannot be guessed.
        TaskError: The data cannot be read, or is not what a task can be made of.
    """
    from fastslow.cli.tasks import build_named
    from fastslow.task.columns import propose_columns
    from fastslow.task.data_files import read_splits

    table = read_splits(data)["train"]
    if not table.rows:
        raise TaskError("\n".join(table.problems) or f"{visible(data)}: holds no rows.")
    proposal = propose_columns(table.rows)
    if asks and not (question and answer):
        print(f"columns of {visible(data)}: {visible(', '.join(proposal.names))}")
    columns = []
    guesses = {"question": (question, proposal.question), "answer": (answer, proposal.answer)}
    for role, (column, guess) in guesses.items():
        if column is None:
            column = typer.prompt(f"Column of the {role}", default=guess) if asks else guess
        if column is None or not {column, column.split(".")[0]} & {*proposal.names}:
            raise ConfigError(
                f"init --{role}: {visible(data)} has no such column, got {column!r}."
                f"{nearest(column or '', proposal.names)} "
                f"Columns: {shorten(', '.join(proposal.names), 400)}."
            )
        columns.append(column)
    params = dict(zip(("data", "text_column", "label_column"), (data, *columns), strict=True))
    words = [f"{key}={_quoted(value)}" for key, value in params.items()]
    task = build_named("text_classification", words, allow_code=False)
    answers = {e.answer for e in (*task.train, *task.validation, *task.test)}
    # a token of a usual vocabulary has two bytes or more; one is the stop token
    tokens = max(len(text.encode()) // 2 + 2 for text in answers)
    sizes = max(task.max_tokens, tokens), len(task.train)
    return _Source(_name(data), data, columns[0], columns[1], *sizes)


def _name(data: str) -> str:
    """A name out of that of the data, or of the folder of a file called train."""
    path = Path(data)
    stem = path.name.partition(".")[0]
    stem = path.absolute().parent.name if stem.casefold() == "train" else stem
    return re.sub(r"[^a-z0-9]+", "_", stem.casefold()).strip("_")[:60] or "task"


def _text(file: Path, sources: list[_Source], model: str) -> str:
    """The configuration, commented."""
    quoted = [
        {name: _quoted(v) if name in ("data", "question", "answer") else v for name, v in pairs}
        for pairs in (vars(source).items() for source in sources)
    ]
    return TEMPLATE.format(
        tasks=", ".join(source.name for source in sources),
        file=visible(shlex.quote(str(file))),
        name=_name(file.name),
        model=_quoted(model),
        entries="".join(ENTRY.format(**values) for values in quoted),
        stages="".join(f"  - {{task: {source.name}, cycles: 3}}\n" for source in sources),
        pool=min(32, max(4, min(source.train for source in sources) // 4)),
    )


def _quoted(text: str) -> str:
    """Text in quotes, as YAML and overrides take it."""
    return json.dumps(text, ensure_ascii=False)


def _write(file: Path, text: str) -> None:
    """Write a new file; `ConfigError` if there is one already, or the folder refuses."""
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        reason = "it is there already" if isinstance(error, FileExistsError) else error.strerror
        raise ConfigError(
            f"init --out: {visible(str(file))} cannot be written: {reason}. Give another name."
        ) from error
