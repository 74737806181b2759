"""Figures: drawn alike everywhere, safe in a page, and nothing left of old ones."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from fastslow.core.prompts import Candidate, PromptProgram
from fastslow.records.events import PopulationEvent, TextEvent
from fastslow.records.run_folder import RunDir
from fastslow.results.render.drawing import draw
from fastslow.results.report import build_report, write_report
from fastslow.results.report.write import DRAWING_NAMES
from tests.support.hostile_folder import write_hostile_run
from tests.support.paths import ROOT
from tests.support.run_folder import write_run

MAX_BYTES = 2_000_000
"""Size a page stays under; whatever could grow without limit is cut where it is collected."""


def test_a_task_name_is_never_read_as_a_formula_or_as_markup_in_a_figure(tmp_path: Path) -> None:
    run = write_hostile_run(tmp_path)
    for drawing in build_report(run).drawings():
        root = ElementTree.fromstring(drawing.svg)
        assert not [e for e in root.iter() if e.tag.endswith(("script", "img", "foreignObject"))]
        assert "onerror=" not in re.sub(r">[^<]*<", "><", drawing.svg)
        assert drawing.png.startswith(b"\x89PNG")
    drawn = {d.name: d.svg for d in build_report(run).drawings()}
    assert "&lt;img src=x onerror" in drawn["stages"]


def test_a_label_in_a_script_that_the_font_lacks_is_drawn_without_a_warning() -> None:
    made = draw("a", "A", "", lambda figure: figure.suptitle("\u6f22 $\\frac{1}{$ %s <b>"))
    assert "\u6f22 $\\frac{1}{$ %s &lt;b&gt;" in made.svg


def test_inside_a_page_figures_take_its_colours_and_ids_of_their_own(tmp_path: Path) -> None:
    for drawing in build_report(write_run(tmp_path)).drawings():
        assert re.findall(r'id="(?!' + drawing.name + "-)", drawing.inline) == []
        assert re.findall(rf"url\(#(?!{drawing.name}-)", drawing.inline) == []
        left = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", drawing.inline))
        assert left == set() or drawing.name == "matrix"
        ElementTree.fromstring(drawing.svg)


def test_the_same_files_give_the_same_page_and_figures_wherever_they_lie(tmp_path: Path) -> None:
    run = write_run(tmp_path / "runs")
    write_report(run)
    copy = tmp_path / "elsewhere"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "figures")
    script = (
        "import sys; from pathlib import Path; from fastslow.results.report import write_report\n"
    )
    subprocess.run(
        [sys.executable, "-c", f"{script}write_report(Path({str(copy)!r}))"],
        check=True,
        env={
            "PYTHONPATH": str(ROOT),
            "PYTHONHASHSEED": "7",
            "TZ": "Asia/Oral",
        },
    )
    names = ["report.html", *(f"figures/{p.name}" for p in sorted((run / "figures").iterdir()))]
    assert len(names) > 8
    assert [(copy / n).read_bytes() == (run / n).read_bytes() for n in names] == [True] * len(names)


def test_a_figure_that_is_no_longer_drawn_is_removed_and_other_files_stay(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    (run / "figures").mkdir()
    for name in ("geometry.png", "geometry.svg", "mine.png"):
        (run / "figures" / name).write_bytes(b"old")
    write_report(run)
    left = {path.name for path in (run / "figures").iterdir()}
    assert "mine.png" in left
    assert left.isdisjoint({"geometry.png", "geometry.svg"})
    assert {path.rsplit(".")[0] for path in left} - {"mine"} <= set(DRAWING_NAMES)


def test_a_long_run_with_long_texts_stays_under_two_megabytes(tmp_path: Path) -> None:
    tasks = tuple(f"task_number_{i}" for i in range(12))
    rows = [dict.fromkeys(tasks, "10") for _ in range(13)]
    run = write_run(tmp_path, rows, tasks)
    with RunDir.open(run) as run_dir:
        for stage, task in enumerate(tasks):
            kept = tuple(
                Candidate(PromptProgram(f"{n} {stage} " + "long " * 20_000), {"a": 0.5})
                for n in range(4)
            )
            run_dir.events.append(
                PopulationEvent(stage, 0, task, kept),
                TextEvent(stage, task, "live", kept[0].program, 0.5, 8),
            )
    write_report(run)
    assert (run / "report.html").stat().st_size < MAX_BYTES
