"""What a paper gets: LaTeX that no name from outside can break out of, numbers beside figures."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastslow.cli.main import main
from fastslow.core.errors import ConfigError
from fastslow.results import report as results
from fastslow.results.render.drawing import Drawing, Figure, draw
from fastslow.results.render.figure_data import HEADER
from fastslow.results.render.layout import Table, Text, row
from fastslow.results.render.paper import (
    BIBLIOGRAPHY,
    latex,
    latex_table,
    slug,
    sources,
    table_csv,
    write_paper,
)
from fastslow.results.report import build_report, report_for_paper
from tests.support.hostile_folder import TASK, write_hostile_run
from tests.support.paths import ROOT
from tests.support.run_folder import write_run

DEMO = ROOT / "runs" / "reference" / "demo"

COMMANDS = {
    *("textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater", "textbar"),
    *("textquotedbl", "textquotesingle", "textasciigrave", "ensuremath", "ldots"),
    *("bullet", "circ", "pm", "uparrow", "downarrow", "Vert"),
}
ATTACKS = (
    r"\input{/etc/passwd}",
    r"\write18{touch owned}",
    r"^^5cinput{x}",
    r"}\end{tabular}\csname input\endcsname{x} % & $x_1^2$ #1 ~",
    r"[2em] * \\[1cm] \def\x{} --- `` ''",
)


def assert_inert(text: str) -> None:
    """Only commands of ours, no special character bare, every brace closed."""
    assert set(re.findall(r"\\([A-Za-z]+)", text)) <= COMMANDS
    rest = re.sub(r"\\([&%$#_{}]|[A-Za-z]+)", "", text)
    assert not set("\\&%$#_^~<>|\"`'") & set(rest)
    depth = 0
    for char in rest:
        depth += (char == "{") - (char == "}")
        assert depth >= 0
    assert depth == 0
    # a bracket or an asterisk could be read as an argument of the line's end before it
    assert not re.search(r"(?<!\{)[\[*]|\](?!\})", rest)


@pytest.mark.parametrize("text", ATTACKS)
def test_a_name_that_attacks_is_set_as_text(text: str) -> None:
    assert_inert(latex(text))


@given(st.text())
def test_any_text_is_set_as_text_on_one_line(text: str) -> None:
    assert_inert(latex(text))
    assert "\n" not in latex(text)


def test_a_hostile_table_keeps_its_form_and_writes_only_where_it_should(tmp_path: Path) -> None:
    rows = tuple(row(attack, Text(attack, is_code=True), attack) for attack in ATTACKS)
    table = Table("../../" + ATTACKS[1], (ATTACKS[0], "b", "c"), rows, ATTACKS[3])
    lines = latex_table(table).splitlines()
    assert sum(line.endswith(r" \\") for line in lines) == 1 + len(ATTACKS)
    assert all(line.count(" & ") == 2 for line in lines if line.endswith(r" \\"))
    written = write_paper(tmp_path / "paper", [table], [], [])
    assert {path.parent.name for path in written} == {"paper", "tables"}
    example = (tmp_path / "paper" / "example.tex").read_text()
    assert re.findall(r"\\input\{(.*)\}", example) == ["tables/01-write18-touch-owned"]


def test_a_hostile_run_is_set_as_text(tmp_path: Path) -> None:
    tables = build_report(write_hostile_run(tmp_path)).tables()
    assert any(TASK in name for table in tables for name in table.header)
    for table in tables:
        rows = [line for line in latex_table(table).splitlines() if line.endswith(r" \\")]
        assert len(rows) == len(table.rows) + 1
        for line in rows:
            cells = line.removesuffix(r" \\").split(" & ")
            assert len(cells) == len(table.header)
            for cell in cells:
                inner = re.fullmatch(r"\\text(?:tt|bf)\{(.*)\}", cell)
                assert_inert(inner[1] if inner else cell)


def test_a_table_is_set_with_booktabs_its_numbers_right_and_its_reasons_said_once() -> None:
    nothing = Text("+0.00", reason="no example changed")
    table = Table("Drops", ("task", "drop"), (row("a_b", nothing), row("c", nothing)), "A note.")
    assert latex_table(table) == (
        "\\begin{table}\n\\centering\\small\n"
        "\\caption{Drops. A note. (a) no example changed.}\n\\label{tab:drops}\n"
        "\\begin{tabular}{lr}\n\\toprule\ntask & drop \\\\\n\\midrule\n"
        "a\\_b & +0.00 (a) \\\\\nc & +0.00 (a) \\\\\n"
        "\\bottomrule\n\\end{tabular}\n\\end{table}\n"
    )
    assert table_csv(table) == "task,drop\na_b,+0.00 (a)\nc,+0.00 (a)\n"


def test_a_spreadsheet_takes_no_name_for_a_formula() -> None:
    computed = ("=cmd()", "@x", "-cmd", "-2+3+cmd|' /C calc'!A0", "+1 (SUM(1))", "-1*A1", "+.x")
    figures = ("-0.50", "-", "+0.64 [+0.52, -]!", "+1e-05", "+0.58 ± 0.01 [-1, +2] (ab)", "-3%")
    table = Table("t", ("=1",), tuple(map(row, (*computed, *figures))))
    cells = [cell for [cell] in csv.reader(io.StringIO(table_csv(table)))]
    assert cells == ["'=1", *(f"'{cell}" for cell in computed), *figures]


def test_slugs_are_plain_and_never_empty() -> None:
    assert slug("Drift from the base: kl_fst") == "drift-from-the-base-kl-fst"
    assert slug("../\\\x00") == "table"
    assert len(slug("a" * 200)) == 48


def figure() -> Drawing:
    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axhline(0.5)
        axes.plot([0, 1], [0.25, 0.75], label="a", color="#112233")
        axes.plot([1, 1], [0.5, 1.0], color="#112233")
        axes.barh(2, 0.5, 0.4, 0.25, label="bar")
        axes.set_yticks([0, 1, 2], ["zero", "one", "two"])

    return draw("made", "Made", "A caption with 100 %.", paint)


def test_the_numbers_beside_a_figure_are_those_that_are_drawn() -> None:
    assert HEADER == ("panel", "series", "kind", "x", "y", "x_name", "y_name", "value")
    assert figure().for_paper()[1] == [
        (1, "a", "point", 0.0, 0.25, None, "zero", None),
        (1, "a", "point", 1.0, 0.75, None, "one", None),
        (1, "a", "interval", 1.0, 0.5, None, "zero", None),
        (1, "a", "interval", 1.0, 1.0, None, "one", None),
        (1, "bar", "bar", 0.25, 2.0, None, "two", 0.5),
    ]


def test_a_figure_is_a_pdf_with_the_same_bytes_each_time() -> None:
    first, second = (figure().for_paper()[0] for _ in range(2))
    assert first.startswith(b"%PDF")
    assert first == second
    assert b"CreationDate" not in first


def test_sources_are_those_that_were_used() -> None:
    def keys(*configs: object, tables: tuple[Table, ...] = ()) -> set[str]:
        entries = "\n".join(sources(tables, list(configs)))  # type: ignore[arg-type]  # plain data
        assert "usedby" not in entries
        return set(re.findall(r"@\w+\{([\w-]+),", entries))

    assert keys() == set()
    assert keys({"slow": {"kind": "grpo", "loss": "cispo"}}) == {"grpo", "trl", "cispo"}
    assert keys({"slow": {"remedies": [{"kind": "ewc"}]}}) == {"ewc", "online-ewc"}
    assert "gepa" in keys({"fast": {"kind": "gepa"}})
    quoting = Table("t", ("formula",), (row("(Lopez-Paz & Ranzato 2017, arXiv 1706.08840)"),))
    assert keys(tables=(quoting,)) == {"gem"}


def test_every_entry_of_the_bibliography_is_whole_and_says_when_it_is_used() -> None:
    lines = [line for line in BIBLIOGRAPHY.read_text().splitlines() if line.startswith("@")]
    keys = [re.match(r"@\w+\{([\w-]+),", line)[1] for line in lines]  # type: ignore[index]
    assert len(keys) == len(set(keys)) == len(lines) > 30
    for line in lines:
        assert line.count("{") == line.count("}")
        assert re.search(r", usedby = \{[^{}]*\}\}$", line), line
        assert "title = {" in line
        assert "eprint = {" in line or "howpublished" in line or "journal" in line


def test_all_of_a_kept_run_is_there_with_the_numbers_of_its_records(tmp_path: Path) -> None:
    paper = tmp_path / "paper"
    report_for_paper(build_report(DEMO), paper)
    files = {str(path.relative_to(paper)) for path in paper.rglob("*.*")}
    assert {"refs.bib", "example.tex", "tables/01-score-matrix.tex"} <= files
    drawn = {Path(file).stem for file in files if file.endswith(".pdf")}
    assert {"retention", "forgetting-kl", "compute", "answers", "stages", "matrix"} <= drawn
    assert drawn == {Path(f).stem for f in files if f.startswith("figures/") and ".csv" in f}
    matrix = csv.DictReader(io.StringIO((paper / "figures" / "matrix.csv").read_text()))
    cells = {(line["y_name"], line["x_name"]): float(line["value"]) for line in matrix}
    scores = json.loads((DEMO / "report.json").read_text())["scores"]
    assert cells["3 word_language", "country_continent"] == scores[3][0]


def test_the_commands_refuse_a_run_folder_before_they_do_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    file = str(ROOT / "configs" / "ablations" / "channels-demo.yaml")
    for words in (["report", str(DEMO)], ["compare", str(DEMO), str(DEMO)], ["ablate", file]):
        assert main([*words, "--paper", str(tmp_path)]) == 2
        assert "a run folder, got run.json in it" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_says_where_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(results, "save_report", lambda report: ())
    monkeypatch.setattr(results, "report_for_paper", lambda *places: calls.append(places))
    run = write_run(tmp_path)
    assert main(["report", str(run), "--paper", str(tmp_path / "paper")]) == 0
    assert [(report.path, folder) for report, folder in calls] == [(run, tmp_path / "paper")]
    assert f"for a paper: {tmp_path / 'paper'}\n" in capsys.readouterr().out


def test_a_run_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="give another folder"):
        write_paper(tmp_path, [], [], [])
