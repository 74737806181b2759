"""report.html: what it says, and that what it quotes can do nothing."""

import re
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from fastslow.core.prompts import Candidate, Lineage, PromptProgram
from fastslow.records.events import PopulationEvent, TextEvent
from fastslow.records.run_folder import RunDir
from fastslow.results.render.drawing import Drawing
from fastslow.results.render.html import TEMPLATES, render
from fastslow.results.render.layout import Table, Text
from fastslow.results.report import build, build_report
from fastslow.results.report.page import CHAPTERS
from fastslow.results.report.page import page as page_text
from fastslow.results.report.section import Records, Section
from fastslow.results.report.sections.completions import Completions
from fastslow.results.report.sections.prompts import Prompts
from fastslow.results.report.sections.tasks import Tasks
from fastslow.results.report.verdict import verdict_sentences
from tests.support.hostile_folder import ATTACKS, write_hostile_run
from tests.support.run_folder import OUTCOMES, report_json, terminal, write_run

VOID = {"meta", "br", "wbr", "img", "link", "input", "hr"}


class Elements(HTMLParser):
    """Every element with its attributes, and all text; elements must be closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.open, self.inside = "", [], []  # type: ignore[var-annotated]  # lists of names
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def page_of(run: Path) -> str:
    """The page without its figures, which have tests of their own in integration/."""
    return page_text(build_report(run), ())


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(write_run(tmp_path_factory.mktemp("runs")))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    return page_of(write_hostile_run(tmp_path_factory.mktemp("runs")))


def test_the_page_forbids_scripts_and_the_network_and_needs_neither(page: str) -> None:
    elements = Elements(page)
    [policy] = [a["content"] for tag, a in elements.found if a.get("http-equiv")]
    assert policy is not None
    assert policy.split("; ")[:3] == [
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
    ]
    assert "script-src" not in policy
    tags = {tag for tag, _ in elements.found}
    assert tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "form", "base"})
    for _, attributes in elements.found:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("href", "src", "xlink:href"):
                assert value is not None
                assert value.startswith("#")
    assert "url(http" not in page
    assert "@import" not in page


def test_links_lead_to_sections_and_no_id_is_there_twice(page: str) -> None:
    elements = Elements(page).found
    ids = [a["id"] for _, a in elements if "id" in a]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for _, a in elements if a.get("href")}  # type: ignore[index]  # not None
    assert targets <= set(ids)
    assert {"scores", "drift", "prompts", "completions", "cost", "formulas", "origin"} <= targets


def test_tables_and_figures_can_be_heard(page: str) -> None:
    elements = Elements(page).found
    tags = [tag for tag, _ in elements]
    assert tags.count("h1") == 1
    assert tags.count("table") == tags.count("caption") > 8
    assert all(a.get("scope") in ("col", "row") for tag, a in elements if tag == "th")
    assert all(a.get("tabindex") == "0" for _, a in elements if a.get("class") == "scroll")


def test_the_first_screen_has_verdict_matrix_and_a_word_on_each_task(page: str) -> None:
    first = page[: page.index('<section id="')]
    assert "backward transfer -0.44 [" in first
    assert first.index("<h1>") < first.index("Score matrix") < first.index("Learned, forgot, kept")
    assert '<td class="learned" style="--score: 1.000"><span class="score">1.00*</span>' in first
    assert '<td class="unseen" style="--score: 0.000"><span class="score">(0.00)</span>' in first
    assert "▼ forgot" in first


def test_the_words_on_each_task_are_as_worked_by_hand(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    outcomes = build_report(run).section(Tasks).outcomes()
    # beta: six of eight from wrong to right, p = 2/64; gamma: five, p = 2/32, not significant
    assert [(summary.task, kind) for summary, kind, _ in outcomes] == [
        ("alpha", "forgot"),
        ("beta", "kept"),
        ("gamma", "not-learned"),
    ]
    page = page_of(run)
    assert "● kept<small>detectable: 0.32</small>" in page
    assert '-0.88<small><span class="nowrap">[-1.00, -0.63]</span></small>' in page


def test_the_page_has_one_verdict_its_first_sentence_as_the_heading(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    first, *others = verdict_sentences(build_report(run))
    page = page_of(run)
    assert f"<h1>{first}</h1>" in page
    assert page.count("beyond the base") == 1
    assert "".join(f"<li>{sentence}</li>" for sentence in others) in page
    begun = page_of(write_run(tmp_path / "begun", OUTCOMES[:2]))
    assert "<h1>The run is running: 2 of 4 rows of the matrix are measured.</h1>" in begun


def test_everything_quoted_is_text(hostile: str) -> None:
    elements = Elements(hostile)
    tags = {tag for tag, _ in elements.found}
    assert tags.isdisjoint({"script", "img", "iframe"})
    assert not [n for _, a in elements.found for n in a if n.startswith("on")]
    assert [t for t, _ in elements.found].count("title") == 1
    for attack in ATTACKS[:3]:
        assert attack in elements.text
    assert "{{ 7 * 7 }} {% raw %}" in elements.text
    assert "$x^2$" in elements.text


def test_controls_and_bidirectional_overrides_are_written_as_escapes(hostile: str) -> None:
    assert all(c == "\n" or c.isprintable() for c in hostile)
    for escape in ("\\x1b[31mred", "\\u202ednammoc", "\\u2066", "\\u200bwidth", "\\x00nul"):
        assert escape in hostile


def test_text_is_legible_on_the_darkest_cell_in_both_schemes() -> None:
    style = (TEMPLATES / "style.css").read_text()
    light, dark = (dict(re.findall(r"--([\w-]+): ([^;]+);", part)) for part in _schemes(style))
    for scheme in (light, light | dark):
        paper, ink = _rgb(scheme["paper"]), _rgb(scheme["ink"])
        heat = [float(part) for part in scheme["heat"].split()]
        strength = float(scheme["heat-strength"])
        cell = [strength * h + (1 - strength) * p for h, p in zip(heat, paper, strict=True)]
        assert _contrast(ink, cell) >= 4.5
        for name in ("ink", "muted", "accent", "loss", *(f"series-{i}" for i in range(6))):
            assert _contrast(_rgb(scheme[name]), paper) >= 4.5, name


def _schemes(style: str) -> Iterator[str]:
    first = style.index("@media screen")
    yield style[:first]
    yield style[first : style.index("*, *::before")]


def _rgb(colour: str) -> list[float]:
    return [float(int(colour[i : i + 2], 16)) for i in (1, 3, 5)]


def _contrast(one: list[float], other: list[float]) -> float:
    """WCAG 2 contrast ratio."""

    def luminance(colour: list[float]) -> float:
        parts = [c / 255 for c in colour]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_completions_are_right_wrong_and_lost_ones_of_the_deployed_prompt(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    alpha, beta, gamma = build_report(run).section(Completions).samples
    assert (alpha.task, alpha.row, alpha.n, alpha.is_withheld) == ("alpha", 3, 8, False)
    assert [s.now.score for s in alpha.right] == [1.0]
    assert [s.now.score for s in alpha.wrong] == [0.0] * 3
    assert [(s.now.score, s.learned.score) for s in alpha.lost if s.learned] == [(0.0, 1.0)] * 3
    assert beta.lost == gamma.lost == ()
    assert {s.now.prompt_policy for s in beta.right} == {"live"}
    begun = write_run(tmp_path / "begun", OUTCOMES[:1])
    first = build_report(begun).section(Completions).samples
    assert [(task.row, len(task.lost)) for task in first] == [(0, 0)] * 3


def test_completions_that_were_withheld_are_not_shown_as_completions(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    scores = run / "scores.jsonl"
    scores.write_text(re.sub(r'"completion": "\w+"', '"completion": "(withheld, 3 characters)"',
                             scores.read_text()))  # fmt: skip
    page = page_of(run)
    assert page.count("The 8 completions of this task were withheld when the run was kept.") == 3
    assert "(withheld, 3" not in page


def test_the_lineage_of_a_deployed_prompt_shows_what_each_step_changed(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    first = PromptProgram("Answer.\nBriefly.", (), Lineage("gepa", "0123456789ab", 0, 0, "w0"))
    second = PromptProgram(
        "Answer.\nIn one word.", (), Lineage("gepa", first.text_hash, 0, 1, "w1")
    )
    with RunDir.open(run) as run_dir:
        run_dir.events.append(
            PopulationEvent(0, 0, "alpha", (Candidate(first, {"a": 1.0}),)),
            TextEvent(0, "alpha", "live", second, 0.5, 8),
        )
    prompts = build_report(run).section(Prompts)
    newest, oldest = prompts.steps(prompts.prompts[0])
    assert newest.lines == (" system: Answer.", "-system: Briefly.", "+system: In one word.")
    assert newest.is_difference
    assert oldest.lines == ("system: Answer.", "system: Briefly.")
    assert oldest.note == "The prompt it was made from was not kept; in full:"


def test_a_value_that_a_template_lacks_is_an_error_and_not_an_empty_place() -> None:
    with pytest.raises(UndefinedError):
        render("report.html", {"title": "x"})


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    run = write_run(tmp_path, OUTCOMES[:1])
    page = page_of(run)
    assert page.count('<td class="none">not measured</td>') == 9
    assert "Prompts kept after" not in page


class Own(Section):
    """A subject of a test's own."""

    drawing_name = "own"

    def __init__(self, records: Records) -> None:
        self.rows = len(records.cells)

    def tables(self) -> list[Table]:
        return [Table("Own", ("rows",), ((Text(str(self.rows)),),))]

    def draw(self) -> Drawing:
        return Drawing("own", "Own", "A caption.", "<svg></svg>", b"")

    def to_json(self) -> Mapping[str, object]:
        return {"own": self.rows}


def test_a_new_subject_is_one_class_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path)
    monkeypatch.setattr(build, "SECTIONS", (*build.SECTIONS, Own))
    assert report_json(run)["own"] == 4
    assert "## Own\n\n| rows |" in (run / "report.md").read_text()
    assert "Own" in terminal(run)
    report = build_report(run)
    page = page_text(report, [report.section(Own).draw()])
    assert "<caption>Own</caption>" in page[page.index('<section id="other"') :]
    assert '<figcaption id="caption-own">A caption.</figcaption>' in page


def test_no_two_sections_write_one_key_or_one_drawing(tmp_path: Path) -> None:
    sections = build_report(write_run(tmp_path)).sections
    keys = [key for section in sections for key in section.to_json()]
    names = [section.drawing_name for section in sections if section.drawing_name]
    assert len(keys) == len(set(keys))
    assert len(names) == len(set(names)) == 13
    assert {section.chapter for section in sections} <= {name for name, *_ in CHAPTERS} | {""}
