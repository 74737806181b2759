"""The pages of `fastslow serve`: what is known of runs, through the templates of the report."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fastslow.core.progress import minutes
from fastslow.core.text import shorten
from fastslow.records.run_folder import require_no_links
from fastslow.results.ablation.arm_figures import figures_of
from fastslow.results.ablation.records_file import read_records_file
from fastslow.results.ablation.write import page as ablation_page
from fastslow.results.compare.build import compare_runs
from fastslow.results.compare.write import figures as compare_figures
from fastslow.results.compare.write import page as compare_page
from fastslow.results.live.catalogue import Catalogue
from fastslow.results.live.snapshot import RunWatch, Snapshot
from fastslow.results.live.terminal import figure_text, figure_words, row_names
from fastslow.results.reading import DAMAGE
from fastslow.results.render import drawing
from fastslow.results.render.html import render
from fastslow.results.report.build import build_report
from fastslow.results.report.page import page as report_page
from fastslow.results.report.section import Report
from fastslow.results.report.sections.curves import Cycles
from fastslow.results.report.sections.prompts import Prompts
from fastslow.results.report.sections.scores import ScoresOverStages

POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'unsafe-inline'; "
    "img-src data:; base-uri 'none'; form-action 'self'"
)
"""Content-Security-Policy of these pages: one script of ours, and nothing from elsewhere."""
MAX_WATCHES = 16
"""Runs whose records are kept in memory, besides those that work."""
DRAWING_SHARE = 0.1
"""Of the time of a processor while a run works. Source: ours."""
MAX_PAGES = 32
"""Pages kept until the records they were made from change."""
Stamp = tuple[object, ...]


class Missing(Exception):
    """There is no run or ablation of that name."""


class Site:
    """Makes the pages about one folder of runs; any number of threads may ask."""

    def __init__(self, root: Path) -> None:
        self._root, self._catalogue = root, Catalogue(root)
        self._watches: dict[str, RunWatch] = {}
        self._pages: dict[str, tuple[Stamp, str, float]] = {}
        """Pages with what they were made from, and until when a live one may be shown."""
        self._looking, self._drawing = threading.Lock(), threading.Lock()

    def runs(self, *, is_part: bool = False) -> str:
        """The list of runs and ablations, or the part of it that changes."""
        with self._looking:
            entries = self._catalogue.look()
        values = {
            "entries": entries,
            "ablations": list(self._catalogue.ablations()),
            "number": _number,
        }
        if is_part:
            return render("live_runs_part.html", values)
        head = {"title": "fastslow runs", "root": str(self._root), "policy": POLICY}
        return render("live_runs.html", head | values)

    def run(self, key: str, *, is_part: bool = False) -> str:
        """What a run is doing, or the part of it that changes every second."""
        with self._looking:
            snapshot = self._watch(key).look()
        clock = f"{minutes(snapshot.elapsed_s)} elapsed"
        if snapshot.remaining_s is not None:
            clock += f", about {minutes(snapshot.remaining_s)} remaining"
        values = {
            "run": snapshot,
            "clock": clock,
            "keys": _keys(snapshot),
            "rows": list(zip(row_names(snapshot), snapshot.cells, strict=True)),
        }
        if is_part:
            return render("live_now_part.html", values)
        head = {"title": f"{snapshot.name} · fastslow", "key": key, "policy": POLICY}
        return render("live_run.html", head | values)

    def record(self, key: str) -> str:
        """The curves of a run and its prompts, as far as they are; drawn when records came."""
        with self._looking:
            watch = self._watch(key)
            snapshot = watch.look()

        def make() -> str:
            require_no_links(watch.path)
            report = Report(watch.path, (ScoresOverStages, Cycles, Prompts))
            prompts = report.section(Prompts)
            curve = reward_figure(snapshot)
            values = {
                "problem": "",
                "drawings": (*((curve,) if curve else ()), *report.drawings()),
                "prompts": prompts,
                "tables": [table for table in prompts.page_tables() if table.rows],
            }
            return render("live_record_part.html", values)

        try:
            stamp = (id(watch), watch.version, snapshot.state)
            return self._kept(f"record {key}", stamp, make, is_live=snapshot.state == "running")
        except DAMAGE as error:
            return render("live_record_part.html", {"problem": shorten(str(error), 300)})

    def report(self, key: str) -> str:
        """The report of a run as far as it is.

        Raises:
            FastSlowError, OSError, ValueError: Its folder cannot be read.
        """
        path = self._path(key)
        require_no_links(path)
        files = [path / "run.json", *path.glob("*.jsonl"), *path.glob("probe/*/*.json")]
        stats = [file.stat() for file in files]

        def make() -> str:
            report = build_report(path)
            return report_page(report, report.drawings())

        stamp = tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)
        return self._kept(f"report {key}", stamp, make)

    def compare(self, keys: Sequence[str]) -> str:
        """Runs compared with the first of them; errors as of `compare_runs`."""
        paths = [self._path(key) for key in keys]
        for path in paths:
            require_no_links(path)
        with self._drawing:
            comparison = compare_runs(paths)
            return compare_page(comparison, compare_figures(comparison))

    def ablation(self, name: str) -> str:
        """An ablation, from its records.jsonl.

        Raises:
            CheckpointError: They are damaged.
        """
        folder = self._catalogue.ablations().get(name)
        if folder is None:
            raise Missing(name)
        require_no_links(folder)
        result = read_records_file(folder / "records.jsonl")
        with self._drawing:
            return ablation_page(result, figures_of(result))

    def _path(self, key: str) -> Path:
        path = self._catalogue.runs().get(key)
        if path is None:
            self._watches.pop(key, None)
            raise Missing(key)
        return path

    def _watch(self, key: str) -> RunWatch:
        """What looks at a run; of many runs the last asked for are kept."""
        path = self._path(key)
        watch = self._watches.pop(key, None) or RunWatch(path)
        self._watches[key] = watch
        while len(self._watches) > MAX_WATCHES:
            del self._watches[next(iter(self._watches))]
        return watch

    def _kept(
        self, name: str, stamp: Stamp, make: Callable[[], str], *, is_live: bool = False
    ) -> str:
        """A page that was made from the same records, or a new one; one is drawn at a time.

        A live one is made so seldom that it takes `DRAWING_SHARE` of the time, which is the run's.
        """
        with self._drawing:
            stamp_before, page, rests_until = self._pages.pop(name, ((), "", 0.0))
            started = time.monotonic()
            if stamp_before != stamp and not (is_live and started < rests_until):
                page, stamp_before = make(), stamp
                ended = time.monotonic()
                rests_until = ended + (ended - started) / DRAWING_SHARE
            self._pages[name] = stamp_before, page, rests_until
            while len(self._pages) > MAX_PAGES:
                del self._pages[next(iter(self._pages))]
            return page


def message(title: str, words: str) -> str:
    """A page that only says something."""
    return render("live_message.html", {"title": title, "message": words, "policy": POLICY})


def reward_figure(snapshot: Snapshot) -> drawing.Drawing | None:
    """The curve of updates, with the ends of stages; None where there is none."""
    values = [value for _, value in snapshot.curve]
    if not values:
        return None
    stages = [stage for stage, _ in snapshot.curve]

    def paint(figure: drawing.Figure) -> None:
        axes = figure.add_subplot()
        axes.plot(range(1, len(values) + 1), values, color=drawing.ACCENT, lw=1.2)
        ends = [i + 0.5 for i in range(1, len(stages)) if stages[i] != stages[i - 1]]
        drawing.stage_ends(axes, ends)
        axes.set_xlabel(snapshot.curve_unit)
        axes.set_ylabel(snapshot.curve_name)

    return drawing.draw(
        "reward",
        f"Every {snapshot.curve_unit}",
        f"{snapshot.curve_name} of every {snapshot.curve_unit}, on training problems; dashed lines "
        "are where stages end.",
        paint,
    )


def _number(run: Snapshot | None, name: str) -> str:
    """A figure of the last whole row, or a dash."""
    value = run.metrics.get(name) if run else None
    return "-" if value is None else figure_text(name, value)


def _keys(run: Snapshot) -> list[tuple[str, str]]:
    """The figures at the top: the newest reward, and those of the last whole row."""
    newest = [(run.curve_name, f"{run.curve[-1][1]:.3f}")] if run.curve else []
    return [*newest, *figure_words(run)]
