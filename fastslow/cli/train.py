"""`check`, `train` and `resume`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastslow.cli.arguments import (
    FilesAndOverrides,
    Run,
    output,
    print_report,
    resume_hint,
    split_words,
)
from fastslow.core.errors import ConfigError
from fastslow.core.text import shorten, visible

if TYPE_CHECKING:
    from fastslow.config.loading.load import LoadedConfig


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
    """Validate configurations; show every value, its source, the cost.

    With several files, prints one line for each. Loads no model and writes nothing, but with
    --calibrate: it takes the model through some passes, and keeps their rates in the user's cache.
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


def train(words: FilesAndOverrides) -> None:
    """Take a model through the stages of FILE, then report.

    Makes a run folder with a resume point after every cycle, and prints the forgetting report.
    """
    from fastslow.config.loading.load import load_config
    from fastslow.results.ablation import is_ablation

    files, overrides = split_words(words)
    if len(files) != 1:
        raise ConfigError(
            f"train: expected one configuration file, got {len(files)}. Combine files with "
            "`extends`, or give key=value overrides."
        )
    if is_ablation(files[0]):
        file = visible(str(files[0]))
        raise ConfigError(
            f"{file}: an ablation file (it has arms). To run it: fastslow ablate {file}"
        )
    loaded = load_config(files, overrides)
    with resume_hint():
        from fastslow.loop.launch import train as start
        from fastslow.results.report import write_report

        folder = start(loaded, ["fastslow", "train", *words], write_report)
    print_report(folder)


def resume(run: Run) -> None:
    """Continue a run from its last resume point, then report."""
    with resume_hint():
        from fastslow.loop.launch import resume as continue_run
        from fastslow.results.report import write_report

        folder = continue_run(run, write_report)
    print_report(folder)


def _print_config(file: Path, overrides: Sequence[str], brief: bool, calibrate: bool) -> None:
    from fastslow.config.loading.load import check_fragment, load_config

    if file.absolute().parent.name == "base":
        check_fragment(file)
        print(f"{visible(str(file))}: ok, a fragment for others to extend")
        return
    from fastslow.loop.preflight import lacking
    from fastslow.results.ablation import is_ablation

    if is_ablation(file):
        _print_ablation(file, overrides, brief)
        return
    loaded = load_config([file], overrides)
    notes = [f"note: {visible(note)}" for note in lacking(loaded.config)]
    if brief:
        print("; ".join((f"{visible(str(file))}: ok, {loaded.config.name}", *notes)))
        return
    if calibrate:
        from fastslow.loop.estimate import calibrate as measure

        measure(loaded.config)
    print(f"{visible(str(file))}: ok")
    _print_values(loaded)
    for note in notes:
        print(note)


def _print_ablation(file: Path, overrides: Sequence[str], brief: bool) -> None:
    from fastslow.results.ablation import read_plan
    from fastslow.results.ablation.plan import plan_table
    from fastslow.results.report.terminal import render_tables

    plan = read_plan(file, overrides)
    name, runs = plan.config.name, len(plan.runs)
    print(f"{visible(str(file))}: ok, {name}, {len(plan.config.arms)} arms, {runs} runs")
    if not brief:
        output().print(render_tables((), [plan_table(plan)]))


def _print_values(loaded: "LoadedConfig") -> None:
    import json

    from fastslow.config.loading.load import leaves
    from fastslow.core.errors import TaskError
    from fastslow.loop.estimate import estimate
    from fastslow.task.registry import build_task

    values = {key: json.dumps(value) for key, value in leaves(loaded.config).items()}
    key_width = min(60, max(map(len, values)))
    value_width = min(40, max(map(len, values.values())))
    for key, written in values.items():
        source = visible(loaded.sources[key])
        value = shorten(written, LONGEST_VALUE)
        print(f"  {shorten(key, 200):{key_width}}  {value:{value_width}}  {source}")
    print("cost")
    config = loaded.config
    names = [*config.task_names, *([config.probe.task] if config.probe else [])]
    uses = {name: (config.task_use(name).use, loaded.task_params.get(name)) for name in names}
    try:
        tasks = {
            name: build_task(name, *use, allow_code=config.allow_code) for name, use in uses.items()
        }
    except TaskError as err:
        tasks = {}
        print(f"  texts are taken for short, as their tasks cannot be built: {visible(str(err))}")
    for line in estimate(config, tasks).lines():
        print(f"  {line}")
