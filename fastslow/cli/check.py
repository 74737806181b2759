"""`check`: everything that can be known of a run before it begins."""

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from fastslow.cli.arguments import Json, output, print_json, split_words
from fastslow.core.errors import ConfigError
from fastslow.core.text import shorten, visible

if TYPE_CHECKING:
    from fastslow.api.checks import CheckResult
    from fastslow.policy.token_lengths import TaskLengths
    from fastslow.task.summary import DataSummary

LONGEST_VALUE = 1000
"""Characters of a value that `check` prints."""


def check(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="FILE… [key=value]…", show_default=False)
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="List every key with its meaning.")] = False,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure first how fast the model runs here.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Validate configurations and data; show values and cost.

    Opens the data of every task and looks for the model. With several files, prints one line for
    each. Loads no weights and writes nothing, except with --calibrate, which measures the model's
    speed and keeps it in the user's cache.
    """
    if keys:
        from fastslow.config.loading.reference import reference

        print(reference(), end="")
        return
    files, overrides = split_words(words or [])
    if not files:
        raise ConfigError(
            "check: no configuration file given. Example: "
            "fastslow check configs/experiments/demo.yaml"
        )
    from fastslow.api.checks import inspect_file

    is_brief, wrong, contents = len(files) > 1, list[str](), list[dict[str, object]]()
    for file in files:
        try:
            result = inspect_file(file, overrides, calibrate=calibrate and not is_brief)
        except ConfigError as err:
            wrong.append(str(err))
            contents.append({"file": str(file), "ok": False, "errors": str(err).split("\n")})
            continue
        contents.append(result.to_json())
        if not as_json:
            _print_result(result, is_brief)
    if as_json:
        print_json({"files": contents})
    if wrong:
        raise ConfigError("\n".join(wrong))


def _print_result(result: "CheckResult", brief: bool) -> None:
    name = visible(result.file)
    if result.kind == "fragment":
        print(f"{name}: ok, a fragment for others to extend")
        return
    notes = [f"note: {visible(note)}" for note in result.notes]
    words = f"ok, {result.name}" if brief or result.plan else "ok"
    if result.plan is not None:
        words += f", {len(result.plan.config.arms)} arms, {len(result.plan.runs)} runs"
    if brief:
        print("; ".join((f"{name}: {words}", *notes, *_num_notes(result))))
        return
    print(f"{name}: {words}")
    _print_values(result)
    _print_lines("data", _data_lines(result))
    if result.cost is not None:
        _print_lines("cost", result.cost.lines())
    for note in notes:
        print(note)
    if result.plan is not None:
        from fastslow.results.ablation.plan import plan_table
        from fastslow.results.report.terminal import render_tables

        output().print(render_tables((), [plan_table(result.plan)]))


def _num_notes(result: "CheckResult") -> Iterator[str]:
    if number := sum(len(summary.notes) for summary in result.data.values()):
        yield f"{number} notes on data: check the file alone to read them"


def _print_values(result: "CheckResult") -> None:
    values = {key: json.dumps(value) for key, (value, _) in result.values.items()}
    key_width = min(60, max(map(len, values), default=0))
    value_width = min(40, max(map(len, values.values()), default=0))
    for key, written in values.items():
        source = visible(result.values[key][1])
        value = shorten(written, LONGEST_VALUE)
        print(f"  {shorten(key, 200):{key_width}}  {value:{value_width}}  {source}")


def _print_lines(title: str, lines: Iterable[str]) -> None:
    print("\n".join((title, *(f"  {visible(line)}" for line in lines))))


def _data_lines(result: "CheckResult") -> Iterator[str]:
    """What the tasks hold, a line for each split, with lengths and notes."""
    for name, summary in result.data.items():
        yield f"{name}  {summary.version}"
        yield from (f"  {line}" for line in _split_lines(summary))
        if result.inspection and (lengths := result.inspection.lengths.get(name)) is not None:
            yield f"  {_lengths_line(lengths)}"
        yield from (f"  note: {note}" for note in summary.notes)


def _split_lines(summary: "DataSummary") -> Iterator[str]:
    for name, split in summary.splits.items():
        words = f"{name:10}  {split.examples:,} examples, {split.answers:,} different answers"
        if split.majority is not None:
            answer, share = split.majority
            words += f", {share:.0%} are {shorten(repr(answer), 40)}"
        yield f"{words}, questions of at most {split.longest:,} characters"


def _lengths_line(lengths: "TaskLengths") -> str:
    context = "unknown" if lengths.context is None else f"{lengths.context:,}"
    return (
        f"tokens      instruction {lengths.instruction}, longest question {lengths.question:,}, "
        f"longest gold answer {lengths.answer}, completions of at most {lengths.max_tokens}; the "
        f"model reads {context}"
    )
