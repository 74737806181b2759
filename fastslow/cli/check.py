"""`check`: everything that can be known of a run before it begins."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastslow.cli.arguments import output, split_words
from fastslow.core.errors import ConfigError
from fastslow.core.text import shorten, visible

if TYPE_CHECKING:
    from fastslow.config.loading.load import LoadedConfig
    from fastslow.config.models import RunConfig
    from fastslow.loop.preflight import Inspection
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
) -> None:
    """Validate configurations and data; show values and cost.

    Opens the data of every task and looks for the model. With several files, prints one line for
    each. Loads no weights and writes nothing, but with --calibrate: it takes the model through some
    passes, and keeps their rates in the user's cache.
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
    wrong = []
    for file in files:
        try:
            _print_config(file, overrides, len(files) > 1, calibrate)
        except ConfigError as err:
            wrong.append(str(err))
    if wrong:
        raise ConfigError("\n".join(wrong))


def _print_config(file: Path, overrides: Sequence[str], brief: bool, calibrate: bool) -> None:
    from fastslow.config.loading.load import check_fragment, load_config

    name = visible(str(file))
    if file.absolute().parent.name == "base":
        check_fragment(file)
        print(f"{name}: ok, a fragment for others to extend")
        return
    from fastslow.results.ablation import is_ablation

    if is_ablation(file):
        _print_ablation(file, overrides, brief)
        return
    loaded = load_config([file], overrides)
    inspection = _inspected(name, [loaded.config], loaded.sources)
    notes = [f"note: {visible(note)}" for note in inspection.notes]
    if brief:
        print("; ".join((f"{name}: ok, {loaded.config.name}", *notes, *_num_notes(inspection))))
        return
    if calibrate:
        from fastslow.loop.estimate import calibrate as measure

        if modules := measure(loaded.config):
            notes.append(f"note: the adapter is on {visible(', '.join(modules))}")
    print(f"{name}: ok")
    _print_values(loaded, inspection)
    for note in notes:
        print(note)


def _print_ablation(file: Path, overrides: Sequence[str], brief: bool) -> None:
    from fastslow.results.ablation import read_plan
    from fastslow.results.ablation.plan import plan_table
    from fastslow.results.report.terminal import render_tables

    plan = read_plan(file, overrides)
    inspection = _inspected(visible(str(file)), [run.config for run in plan.runs])
    notes = [f"note: {visible(note)}" for note in inspection.notes]
    words = f"ok, {plan.config.name}, {len(plan.config.arms)} arms, {len(plan.runs)} runs"
    if brief:
        print("; ".join((f"{visible(str(file))}: {words}", *notes, *_num_notes(inspection))))
        return
    print(f"{visible(str(file))}: {words}")
    _print_lines("data", _data_lines(inspection))
    for note in notes:
        print(note)
    output().print(render_tables((), [plan_table(plan)]))


def _inspected(
    name: str, configs: Iterable["RunConfig"], sources: Mapping[str, str] = MappingProxyType({})
) -> "Inspection":
    """Open the data and look for the models of all configurations of a file.

    `sources` has the origin of every key, as in `LoadedConfig`.

    Raises:
        ConfigError: A run would stop at something; names all of it.
    """
    from fastslow.config.acting import acting_signals
    from fastslow.loop.preflight import Inspection, inspect, lacking

    inspection, seen = Inspection(), set[str]()
    for config in configs:
        probed = config.probe and config.probe.task
        keys: dict[str, Any] = {"model": True, "tasks": True, "stages": True, "slow": {"guidance"}}
        needs = f"{config.model_dump_json(include=keys)} {probed} {acting_signals(config)}"
        inspection.add(Inspection(notes=lacking(config)) if needs in seen else inspect(config))
        seen.add(needs)
    if inspection.problems:
        lines = [f"{_origin(key, sources) or name}: {text}" for key, text in inspection.problems]
        raise ConfigError("\n".join(lines))
    return inspection


def _origin(key: str, sources: Mapping[str, str]) -> str | None:
    """File and line where a key is set, or the data of a task; None for overrides and defaults."""
    places = (sources.get(f"{key}{end}", "") for end in ("", ".params.data", ".use"))
    files = (place for place in places if re.search(r":\d+$", place))
    return next(files, None)


def _num_notes(inspection: "Inspection") -> Iterator[str]:
    if number := sum(len(task.notes) for task in inspection.tasks.values()):
        yield f"{number} notes on data: check the file alone to read them"


def _print_values(loaded: "LoadedConfig", inspection: "Inspection") -> None:
    from fastslow.config.loading.load import leaves
    from fastslow.loop.estimate import estimate

    values = {key: json.dumps(value) for key, value in leaves(loaded.config).items()}
    key_width = min(60, max(map(len, values)))
    value_width = min(40, max(map(len, values.values())))
    for key, written in values.items():
        source = visible(loaded.sources[key])
        value = shorten(written, LONGEST_VALUE)
        print(f"  {shorten(key, 200):{key_width}}  {value:{value_width}}  {source}")
    _print_lines("data", _data_lines(inspection))
    is_complete = set(loaded.config.task_names) <= set(inspection.tasks)  # else short texts
    tasks = inspection.tasks if is_complete else {}
    _print_lines("cost", estimate(loaded.config, tasks).lines())


def _print_lines(title: str, lines: Iterable[str]) -> None:
    print("\n".join((title, *(f"  {visible(line)}" for line in lines))))


def _data_lines(inspection: "Inspection") -> Iterator[str]:
    """What the tasks hold, a line for each split, with lengths and notes."""
    from fastslow.task.summary import summarize

    for name, task in inspection.tasks.items():
        summary = summarize(task)
        yield f"{name}  {summary.version}"
        yield from (f"  {line}" for line in _split_lines(summary))
        if (lengths := inspection.lengths.get(name)) is not None:
            yield f"  {_lengths_line(lengths)}"
        yield from (f"  note: {note}" for note in task.notes)


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
