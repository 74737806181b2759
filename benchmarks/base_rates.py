"""What the default model scores on every shipped task before training, for their cards.

    python -m benchmarks.base_rates                        # every task, cached
    python -m benchmarks.base_rates --data PATH            # and the sets of a folder
    python -m benchmarks.base_rates maze qqp --data PATH   # these alone

Each row is kept in runs/reference/base_rates.json as it is measured and written into the section
"Base-model score" of its task's card; others stay as they are. May be stopped at any time.
"""

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.figures import write_figures
from fastslow.config.loading.load import load_config
from fastslow.loop.base_rate import BaseRate, Draws, base_rate
from fastslow.task.choices import ChoiceConfig
from fastslow.task.registry import find_task

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "runs" / "reference" / "base_rates.json"
MODEL = "smollm2-135m-instruct"
TASKS = (
    "country_continent", "word_valence", "word_language", "star_graph", "maze", "reasoning_gym",
    "small_programs",
)  # fmt: skip
SETS = ("agnews", "amazon", "boolqa", "dbpedia", "qqp", "sst-2")
"""Folders under `--data`, for `text_classification`."""
SETTINGS: tuple[Mapping[str, str], ...] = (
    {"options": "listed", "grader": "mention"},
    {"options": "hidden", "grader": "exact_match"},
)
SIZES = {"max_train": 400, "max_validation": 100, "max_test": 200}
"""Of a set; train and validation have no bearing but on which problems are the first."""
FIGURES = ("greedy", "majority", "reward", "mixed")
HEADING, AFTER = "\n## Base-model score\n", "\n## Change log\n"


def measured(name: str, params: Mapping[str, Any]) -> BaseRate:
    """The figures of one task with these parameters."""
    words = ["name=base-rate", "allow_code=true", "slow=null", f"model.name={MODEL}"]
    words += ["stages=[{task: task}]", f"tasks.task.use={name}"]
    words += [f"tasks.task.params.{key}={value}" for key, value in params.items()]
    rate, _ = base_rate(load_config((), words), "task", Draws())
    print(f"{name} {dict(params)}", *rate.lines()[1:], sep="\n  ", flush=True)
    return rate


def rows(names: Sequence[str], data: Path | None) -> Iterator[dict[str, Any]]:
    """A row of figures for each setting of the tasks and sets of these names."""
    for name in filter(names.__contains__, TASKS):
        is_choice = issubclass(find_task(name).config_class, ChoiceConfig)
        for setting in SETTINGS if is_choice else ({},):
            yield _row(name, "", setting, measured(name, setting))
    for name in filter(names.__contains__, SETS if data is not None else ()):
        for setting in SETTINGS:
            params = {"data": f"{data}/{name}", **SIZES, **setting}
            yield _row(
                "text_classification", name, setting, measured("text_classification", params)
            )


def _row(task: str, data: str, setting: Mapping[str, str], rate: BaseRate) -> dict[str, Any]:
    figures = {name: getattr(rate, name) for name in FIGURES}
    rounded = {name: value if value is None else round(value, 4) for name, value in figures.items()}
    identity = {"task": task, "data": data, "setting": ", ".join(setting.values())}
    texts = [line.partition(":")[2].strip() for line in rate.lines()[1:]]
    cells = [text.rpartition(",")[0] or text for text in texts]  # without what is counted
    version = {"version": rate.task, "content": rate.content}
    return {**identity, **version, **rounded, "cells": cells}


def _place(row: Mapping[str, Any]) -> tuple[int, ...]:
    """Where a row stands among all; a row of the same place takes its place."""
    settings = ["", *(", ".join(setting.values()) for setting in SETTINGS)]
    orders = ((*TASKS, "text_classification"), ("", *SETS), settings)
    values = (row["task"], row["data"], row["setting"])
    return tuple(order.index(value) for order, value in zip(orders, values, strict=True))


def card_section(rows_of_task: Sequence[Mapping[str, Any]], draws: Mapping[str, Any]) -> str:
    """The table of one card."""
    lines = ["| answers | greedy, test | majority, test | reward | groups to learn from |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for row in rows_of_task:
        name = ": ".join(filter(None, (row["data"], row["setting"]))) or "as shipped"
        lines.append(f"| {' | '.join([name, *row['cells']])} |")
    rollouts = f"{draws['group']} rollouts at temperature {draws['temperature']:g}"
    text = (
        f"`{MODEL}` under the seed instruction alone, by `python -m benchmarks.base_rates`. Reward "
        f"is the mean score of {rollouts} of each of the first {draws['problems']} train problems; "
        "a group whose rollouts differ in score is one to learn from. Brackets: 95 % intervals."
    )
    return "\n".join(["", textwrap.fill(text, 100, break_on_hyphens=False), "", *lines, ""])


def cards(kept: Mapping[str, Any]) -> dict[Path, str]:
    """Every card as it should be, given the kept figures."""
    texts = {}
    for name in sorted({row["task"] for row in kept["rows"]}):
        path = ROOT / "tasks" / name / "README.md"
        section = card_section([r for r in kept["rows"] if r["task"] == name], kept["draws"])
        text = path.read_text(encoding="utf-8")
        heading, _, rest = text.partition(HEADING)
        texts[path] = f"{heading}{HEADING}{section}{AFTER}{rest.partition(AFTER)[2]}"
    return texts


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, keep the figures, and write the cards."""
    parser = argparse.ArgumentParser(description="What the default model scores before training.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="tasks or sets, alone")
    parser.add_argument("--data", type=Path, help="folder with the sets of text_classification")
    options = parser.parse_args(arguments)
    names = options.names or (*TASKS, *SETS)
    if unknown := {*names} - {*TASKS, *SETS}:
        parser.error(f"unknown: {', '.join(unknown)}. Known: {', '.join((*TASKS, *SETS))}.")
    before = json.loads(KEPT.read_text())["rows"] if KEPT.exists() else ()
    table = {_place(row): row for row in before}
    for row in rows(names, options.data):
        table[_place(row)] = row
        ordered = [row for _, row in sorted(table.items())]
        kept = {"model": MODEL, "draws": asdict(Draws()), "rows": ordered}
        write_figures(KEPT, kept, "base_rates", ["--data", "PATH"])
        for path, text in cards(kept).items():
            path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
