"""Do time and memory grow with what there is to read, and no faster?

    python -m benchmarks.load                  # prints a table; about 15 minutes on one core
    python -m benchmarks.load --json out.json
    python -m benchmarks.load --only report    # works whose name holds a word

Every work is a command of a user, in a process of its own, at a tenth, a half and the whole of a
size: data of 1,000,000 rows, a run of 200,000 score rows, runs of 20, 100 and 200 stages, folders
of 50, 250 and 500 runs. Inputs are made up, see `load_inputs`. Growth is what a unit costs between
half and whole, over what one costs between a tenth and half: 1 where the cost is proportional, 2.5
where it is quadratic. Exit code 1 where it is more than `MAX_GROWTH`, or a limit is broken.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal, TypeAlias

from benchmarks.figures import write_figures
from benchmarks.keeping import REFERENCE, ROOT
from benchmarks.load_inputs import copy_runs, make_run, write_table

FILE = REFERENCE / "load.json"
MAX_GROWTH = 1.5
"""Ours: sorting takes a tenth more, a machine that does other work may take as much again."""
LEAST_S, LEAST_MB = 2.0, 200.0
"""Less than this from a tenth to the whole is noise, and its growth says nothing."""
SERVED = (
    "import sys; from pathlib import Path; from fastslow.results.live.site import Site; "
    "Site(Path(sys.argv[1])).runs()"
)
Inputs: TypeAlias = Literal["csv", "jsonl", "long", "deep", "finished", "dead", "arms"]


@dataclass(frozen=True)
class Work:
    """A command whose cost should be proportional to the number of some units."""

    name: str
    unit: str
    units: tuple[int, ...]
    """A tenth, a half and the whole of what is read."""
    words: Sequence[str]
    """The command; `{folder}` stands for that of the inputs, a star for all that fit."""
    inputs: Inputs
    limit_s: float | None = None
    """Wall time that the whole may take."""
    limit_mb: float | None = None


@dataclass(frozen=True)
class Cost:
    """What one process took."""

    units: int
    wall_s: float
    processor_s: float
    peak_mb: float
    lines: int
    """That it printed."""


@dataclass(frozen=True)
class Figures:
    """A work at its sizes."""

    name: str
    unit: str
    costs: tuple[Cost, ...]
    growth: float | None
    """Of processor time; None where it is too little to tell."""
    growth_of_memory: float | None
    broken: tuple[str, ...]
    """Limits that the work broke, each in a few words."""


@dataclass(frozen=True)
class Sizes:
    """How much there is, at a tenth, a half and the whole."""

    rows: tuple[int, ...] = (100_000, 500_000, 1_000_000)
    """Of a data file."""
    examples: tuple[int, ...] = (1000, 5000, 10_000)
    """Of each of the 20 cells of a run of four stages."""
    stages: tuple[int, ...] = (20, 100, 200)
    runs: tuple[int, ...] = (50, 250, 500)
    arms: tuple[int, ...] = (10, 25, 50)

    @property
    def long(self) -> tuple[int, ...]:
        """Score rows of runs with many examples."""
        return tuple(20 * number for number in self.examples)

    @property
    def deep(self) -> tuple[int, ...]:
        """Score rows of runs with many stages, ten a cell."""
        return tuple(10 * number * (number + 1) for number in self.stages)


TINY = Sizes((1000, 5000, 10_000), (10, 50, 100), (2, 4, 6), (2, 3, 4), (2, 3, 4))


def make_inputs(inputs: Inputs, folder: Path, sizes: Sizes, size: int) -> None:
    """Fill an empty folder with inputs of the size of that index."""
    match inputs:
        case "csv" | "jsonl":
            write_table(folder / f"data.{inputs}", sizes.rows[size])
        case "long":
            make_run(folder, 4, sizes.examples[size]).rename(folder / "run")
        case "deep":
            make_run(folder, sizes.stages[size], 10).rename(folder / "run")
        case "dead" | "finished":
            run = make_run(folder, 4, 64)
            if inputs == "finished":
                subprocess.run(_command(("report", run)), check=True, cwd=ROOT, capture_output=True)
            copy_runs(run, folder, sizes.runs[size])
            shutil.rmtree(run)
        case "arms":
            for seed in range(sizes.arms[size]):
                make_run(folder, 4, 64, seed=seed).rename(folder / f"{seed:02}-run")


def works(sizes: Sizes) -> list[Work]:
    """Everything that is measured."""

    def show(suffix: Literal["csv", "jsonl"]) -> Work:
        words = ("tasks", "show", "text_classification", f"data={{folder}}/data.{suffix}")
        return Work(f"tasks show, .{suffix}", "rows", sizes.rows, words, suffix)

    run, long, runs = "{folder}/run", ("score rows", sizes.long), ("runs", sizes.runs)
    deep, arms = ("score rows", sizes.deep), ("runs", sizes.arms)
    return [
        show("csv"),
        show("jsonl"),
        Work("runs, a long run", *long, ("runs", "{folder}"), "long", 3),
        Work("gate, a long run", *long, ("gate", run), "long"),
        Work("prompts, a long run", *long, ("prompts", run), "long"),
        Work("watch, a long run", *long, ("watch", "--once", run), "long"),
        Work("report, a long run", *long, ("report", run), "long", 60, 2000),
        Work("gate, many stages", *deep, ("gate", run), "deep"),
        Work("report, many stages", *deep, ("report", run), "deep", 60, 2000),
        Work("runs, finished", *runs, ("runs", "{folder}"), "finished", 3),
        Work("runs --json", *runs, ("runs", "--json", "{folder}"), "finished"),
        Work("serve, the list", *runs, ("-c", SERVED, "{folder}"), "finished"),
        Work("runs, without reports", *runs, ("runs", "{folder}"), "dead", 3),
        Work("compare", *arms, ("compare", "{folder}/*-run"), "arms"),
        Work(
            "compare --out", *arms, ("compare", "--out", "{folder}/page", "{folder}/*-run"), "arms"
        ),
    ]


def measure(work: Work, folders: Sequence[Path]) -> Figures:
    """Run a work on the inputs of each size."""
    costs = [_cost(u, _words(work, f)) for u, f in zip(work.units, folders, strict=True)]
    growth = _growth([(c.units, c.processor_s) for c in costs], LEAST_S)
    growth_of_memory = _growth([(c.units, c.peak_mb) for c in costs], LEAST_MB)
    broken, whole = [], costs[-1]
    if work.limit_s is not None and whole.wall_s > work.limit_s:
        broken.append(f"{whole.wall_s:.1f} s, limit {work.limit_s:g}")
    if work.limit_mb is not None and whole.peak_mb > work.limit_mb:
        broken.append(f"{whole.peak_mb:.0f} MB, limit {work.limit_mb:g}")
    for name, value in (("time", growth), ("memory", growth_of_memory)):
        if value is not None and value > MAX_GROWTH:
            broken.append(f"{name} grows by {value:.2f}, limit {MAX_GROWTH}")
    return Figures(work.name, work.unit, tuple(costs), growth, growth_of_memory, tuple(broken))


def _growth(points: Sequence[tuple[int, float]], least: float) -> float | None:
    """What a unit costs in the upper half, over what one costs below; None where that is noise."""
    (n1, first), (n2, second), (n3, third) = points
    if third - first < least:
        return None
    lower = (second - first) / (n2 - n1) if second > first else second / n2
    return (third - second) / (n3 - n2) / lower


def _words(work: Work, folder: Path) -> Iterator[str]:
    for word in work.words:
        text = word.replace("{folder}", str(folder))
        yield from map(str, sorted(folder.glob("*-run"))) if "*" in text else (text,)


def _command(words: Iterable[str | Path]) -> list[str]:
    """A command of fastslow, or of Python where it begins with `-c`."""
    first, *rest = map(str, words)
    return [sys.executable, *(() if first == "-c" else ("-m", "fastslow")), first, *rest]


def _cost(units: int, words: Iterable[str]) -> Cost:
    """What a command takes; a gate may say no."""
    command = _command(words)
    with tempfile.TemporaryFile() as out:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        printed = out.read()
    if process.returncode not in (0, 3):
        raise SystemExit(f"{command}: exit code {process.returncode}\n{printed.decode()[-2000:]}")
    processor, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    return Cost(units, round(wall, 2), round(processor, 2), round(peak, 1), printed.count(b"\n"))


def load_lines() -> list[str]:
    """The part of docs/results.md about load, where there are figures of it."""
    if not FILE.is_file():
        return []
    content = json.loads(FILE.read_text())
    works = [
        Figures(**{**work, "costs": tuple(Cost(**cost) for cost in work["costs"])})
        for work in content["works"]
    ]
    return [
        "## Load: what a lot of data costs",
        "",
        f"Made by `{content['command']}` on {content['environment']['cpus']} CPU cores.",
        "Each is a process of its own, its start included. Growth: what a unit costs from half to",
        "whole, over what one costs from a tenth to half, in processor time and in memory; - is",
        "too little to tell.",
        "",
        *_table(works),
        "",
    ]


def _table(works: Sequence[Figures]) -> Iterator[str]:
    """Markdown, a row for each size."""
    yield "| work | size | seconds | processor seconds | peak MB | growth, time | growth, memory |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for work in works:
        for number, cost in enumerate(work.costs):
            is_last = number == len(work.costs) - 1
            values = (work.growth, work.growth_of_memory) if is_last else ()
            growth = ["-" if value is None else f"{value:.2f}" for value in values] or ["", ""]
            size = f"{cost.units:,} {work.unit}"
            times = f"{cost.wall_s:.1f} | {cost.processor_s:.1f} | {cost.peak_mb:.0f}"
            yield f"| {work.name} | {size} | {times} | {' | '.join(growth)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a hundredth of it, without limits")
    parser.add_argument("--only", default="", metavar="WORD", help="works whose name holds WORD")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    figures, sizes = list[Figures](), TINY if options.tiny else Sizes()
    with tempfile.TemporaryDirectory(prefix="load-") as root:
        wanted = [work for work in works(sizes) if options.only in work.name]
        for inputs, sharing in groupby(wanted, key=lambda work: work.inputs):
            folders = [Path(root) / f"{inputs}-{size}" for size in range(3)]
            for size, folder in enumerate(folders):
                folder.mkdir()
                make_inputs(inputs, folder, sizes, size)
            for work in sharing:
                figures.append(measure(work, folders))
                print(*_table(figures[-1:]), sep="\n", flush=True)
            for folder in folders:
                shutil.rmtree(folder)
    if options.json:
        content = {"works": [asdict(work) for work in figures]}
        write_figures(options.json, content, "load", arguments)
    broken = [f"{work.name}: {words}" for work in figures for words in work.broken]
    print("\n".join(broken) or "every limit holds")
    return int(bool(broken) and not options.tiny)


if __name__ == "__main__":
    sys.exit(main())
