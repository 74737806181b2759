"""Writes docs/screens/: the kept demonstration as a terminal and a browser show it.

    python -m benchmarks.screens

Pictures need Chromium; without it the terminals alone are written.
"""

import io
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.ablations import ABLATIONS
from benchmarks.keeping import REFERENCE, ROOT
from fastslow.results.ablation.records_file import read_records_file
from fastslow.results.ablation.write import write_result
from fastslow.results.compare.build import compare_runs
from fastslow.results.compare.tables import first_screen
from fastslow.results.compare.write import figures, page
from fastslow.results.report import build_report, render_terminal
from fastslow.results.report.page import page as report_page
from fastslow.results.report.terminal import render_tables
from tests.support.browser import Browser, chromium
from tests.support.page_checks import WIDTHS

SCREENS = ROOT / "docs" / "screens"
COLUMNS = (80, 120)
HEIGHTS = dict(zip(WIDTHS, (1500, 1400, 1300), strict=True))
"""Pixels of a page that are shown, by its width."""
COMPARED = ("demo", "demo-shrink", "demo-kl-budget")
ABLATION = "channels-text"


def terminals() -> dict[str, str]:
    """The ends of a run and of a comparison, by file."""
    sentences, table = first_screen(compare_runs([REFERENCE / name for name in COMPARED]))
    shown = {
        "report": render_terminal(build_report(REFERENCE / "demo")),
        "compare": render_tables(sentences, [table]),
    }
    texts = {}
    for columns in COLUMNS:
        for name, content in shown.items():
            out = io.StringIO()
            Console(file=out, width=columns, highlight=False).print(content)
            lines = [line.rstrip() for line in out.getvalue().splitlines()]
            texts[f"{name}-{columns}.txt"] = "\n".join(lines) + "\n"
    return texts


def pages(folder: Path) -> list[Path]:
    """The three pages of the kept records, written into a folder."""
    report = build_report(REFERENCE / "demo")
    comparison = compare_runs([REFERENCE / name for name in COMPARED])
    write_result(read_records_file(ABLATIONS / ABLATION / "records.jsonl"), folder)
    texts = {
        "report.html": report_page(report, report.drawings()),
        "compare.html": page(comparison, figures(comparison)),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in (*texts, "ablation.html")]


def main() -> None:
    """Write all of them."""
    SCREENS.mkdir(exist_ok=True)
    for name, text in terminals().items():
        (SCREENS / name).write_text(text, encoding="utf-8")
        print(f"written: docs/screens/{name}")
    program = chromium()
    if program is None:
        return
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as profile:
        paths = pages(Path(folder))
        with Browser(program, Path(profile)) as browser:
            for path in paths:
                for width in WIDTHS:
                    name = f"{path.stem}-{width}.png"
                    browser.open(path, width=width)
                    browser.screenshot(SCREENS / name, height=HEIGHTS[width])
                    print(f"written: docs/screens/{name}")


if __name__ == "__main__":
    main()
