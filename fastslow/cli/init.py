"""`init`: a first configuration of one's own, out of data files."""

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from fastslow.core.errors import ConfigError, TaskError, nearest
from fastslow.core.text import shorten, visible

MODEL = "smollm2-135m-instruct"
TEMPLATE = """\
# Question: what does {model} learn of {tasks}, and what does it keep of it?
# Made by:  {command}
# Check:    fastslow check {file}    (data, minutes, memory; docs/config.md lists every key)
# Command:  fastslow train {file}
name: {name}
model:
  name: {model_text}  # of `fastslow models list`, a local folder, or a hub id
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
      max_tokens: {max_tokens}  # of an answer; the longest here has {longest} characters
"""


@dataclass(frozen=True)
class _Source:
    """Data with its columns."""

    name: str
    data: str
    question: str
    answer: str
    max_tokens: int
    longest: int
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
    if doubles := {source.name for source in sources if _count(sources, source.name) > 1}:
        raise ConfigError(
            f"init --data: two tasks would be called {doubles.pop()!r}. Rename a file or folder."
        )
    file = out or Path(f"{sources[0].name}.yaml")
    if asks and model is None:
        model = typer.prompt("Base model", default=MODEL)
    if asks and out is None:
        file = Path(typer.prompt("File to write", default=str(file)))
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
    if result.cost and result.cost.minutes is not None:
        print(f"  about {max(1, round(result.cost.minutes))} minutes on two CPU cores")
    for note in result.notes:
        print(f"note: {visible(note)}")
    print(f"next: fastslow train {visible(shlex.quote(str(file)))}")


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
    name = re.sub(r"[^a-z0-9]+", "_", _stem(data).casefold()).strip("_") or "task"
    chosen = {}
    guesses = {"question": proposal.question, "answer": proposal.answer}
    for role, given in (("question", question), ("answer", answer)):
        column = given or guesses[role]
        if asks and given is None:
            print(f"columns of {visible(data)}: {visible(', '.join(proposal.names))}")
            column = typer.prompt(f"Column of the {role}", default=column)
        if column is None or not {column, column.split(".")[0]} & {*proposal.names}:
            hint = nearest(column, proposal.names) if column else ""
            raise ConfigError(
                f"init --{role}: {visible(data)} has no such column, got {column!r}.{hint} "
                f"Columns: {shorten(', '.join(proposal.names), 400)}."
            )
        chosen[role] = column
    params = {"data": data, "text_column": chosen["question"], "label_column": chosen["answer"]}
    words = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in params.items()]
    task = build_named("text_classification", words, allow_code=False)
    examples = (*task.train, *task.validation, *task.test)
    longest = max((example.answer for example in examples), key=lambda text: len(text.encode()))
    # a token of a usual vocabulary has two bytes or more; one is the stop token
    max_tokens = max(task.max_tokens, len(longest.encode()) // 2 + 2)
    sizes = max_tokens, len(longest), len(task.train)
    return _Source(name, data, chosen["question"], chosen["answer"], *sizes)


def _stem(data: str) -> str:
    """The name of data without its endings; that of the folder of a file called train."""
    path = Path(data)
    stem = path.name.partition(".")[0]
    return path.absolute().parent.name if stem.casefold() == "train" else stem


def _count(sources: Sequence[_Source], name: str) -> int:
    return sum(source.name == name for source in sources)


def _text(file: Path, sources: Sequence[_Source], model: str) -> str:
    """The configuration, commented."""
    words = ["fastslow", "init", "--out", str(file), "--model", model, *_words(sources)]
    entries = (
        ENTRY.format(
            name=source.name,
            data=_quoted(source.data),
            question=_quoted(source.question),
            answer=_quoted(source.answer),
            max_tokens=source.max_tokens,
            longest=source.longest,
        )
        for source in sources
    )
    return TEMPLATE.format(
        model=visible(model),
        tasks=", ".join(source.name for source in sources),
        command=visible(shlex.join(words)),
        file=visible(shlex.quote(str(file))),
        name=re.sub(r"[^a-z0-9_-]+", "-", file.stem.casefold()).strip("-_")[:60] or "run",
        model_text=_quoted(model),
        entries="".join(entries),
        stages="".join(f"  - {{task: {source.name}, cycles: 3}}\n" for source in sources),
        pool=min(32, max(4, min(source.train for source in sources) // 4)),
    )


def _words(sources: Sequence[_Source]) -> Iterator[str]:
    for source in sources:
        yield from ("--data", source.data)
    columns = {(source.question, source.answer) for source in sources}
    if len(columns) == 1:
        yield from ("--question", sources[0].question, "--answer", sources[0].answer)


def _quoted(text: str) -> str:
    """Text as YAML has it, in quotes."""
    return json.dumps(text, ensure_ascii=False)


def _write(file: Path, text: str) -> None:
    """Write a new file.

    Raises:
        ConfigError: There is one already, or the folder refuses.
    """
    try:
        with open(file, "x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError as error:
        raise ConfigError(
            f"init --out: {visible(str(file))} is there already. Give another name."
        ) from error
    except OSError as error:
        raise ConfigError(
            f"init --out: {visible(str(file))} cannot be written, got {os.strerror(error.errno or 0)}. "
            "Give another place."
        ) from error
