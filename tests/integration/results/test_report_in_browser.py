"""The reports as a browser shows them: nothing runs, nothing is fetched, nothing sticks out."""

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastslow.results.ablation.arm_figures import figures_of
from fastslow.results.ablation.records_file import read_records_file
from fastslow.results.ablation.result import make_result
from fastslow.results.ablation.write import page
from fastslow.results.compare.build import compare_runs
from fastslow.results.compare.write import write_comparison
from fastslow.results.report import build_report, write_report
from fastslow.results.report.page import page as report_page
from fastslow.results.signals.write import write_signals
from tests.support.browser import NAMES, Browser, chromium
from tests.support.hostile_folder import ATTACKS, write_hostile_run
from tests.support.made_ablation import both_and_slow, config
from tests.support.page_checks import WIDTHS, cut_off, is_in_sight
from tests.support.paths import ROOT
from tests.support.run_folder import long_sequence, write_run
from tests.support.signal_study import hostile_study

REFERENCE = ROOT / "runs" / "reference" / "demo"
PROGRAM = chromium()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason=f"none of {', '.join(NAMES)} is on PATH")
SCREENS = [*((width, False) for width in WIDTHS), (375, True), (1440, True)]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with Browser(PROGRAM, tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small run, one of ten tasks, one that attacks, the demonstration, and all compared."""
    folder = tmp_path_factory.mktemp("runs")
    runs = {"small": write_run(folder / "a"), "hostile": write_hostile_run(folder / "b")}
    runs["demo"] = folder / "demo"
    shutil.copytree(REFERENCE, runs["demo"])
    for run in runs.values():
        write_report(run)
    write_comparison(compare_runs([runs["hostile"], runs["demo"], runs["small"]]), folder / "c")
    result = make_result(config(), both_and_slow(), Counter({"fst": 3, "slow-only": 3}))
    (folder / "ablation.html").write_text(page(result, figures_of(result)), encoding="utf-8")
    long = build_report(write_run(folder / "l", *long_sequence(10)))
    (folder / "long.html").write_text(report_page(long, ()), encoding="utf-8")
    kept = ROOT / "runs" / "reference" / "ablations" / "channels-text" / "records.jsonl"
    text = page(read_records_file(kept), ())
    (folder / "kept.html").write_text(text, encoding="utf-8")
    write_signals(hostile_study(), folder / "signals")
    made = {name: run / "report.html" for name, run in runs.items()}
    return made | {
        "signals": folder / "signals" / "signals.html",
        "comparison": folder / "c" / "compare.html",
        "ablation": folder / "ablation.html",
        "long": folder / "long.html",
        "kept ablation": folder / "kept.html",
    }


def assert_quiet(browser: Browser) -> None:
    """No error, no word on the console, no dialog, no request but for the file itself."""
    assert browser.named("Runtime.exceptionThrown", "Page.javascriptDialogOpening") == []
    assert browser.named("Runtime.consoleAPICalled") == []
    assert [e["entry"]["text"] for e in browser.named("Log.entryAdded")] == []
    requests = [e["request"]["url"] for e in browser.named("Network.requestWillBeSent")]
    assert len(requests) == 1
    assert requests[0].startswith("file://")


@pytest.mark.parametrize(("width", "dark"), SCREENS)
@pytest.mark.parametrize(
    "name",
    ["small", "long", "hostile", "demo", "comparison", "ablation", "kept ablation", "signals"],
)
def test_a_report_opens_quietly_and_nothing_sticks_out(
    browser: Browser, pages: dict[str, Path], name: str, width: int, dark: bool
) -> None:
    browser.open(pages[name], width=width, dark=dark)
    assert cut_off(browser) == []
    assert_quiet(browser)
    paper = browser.value("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(21, 23, 27)" if dark else "rgb(252, 252, 250)")


@pytest.mark.parametrize("width", [1280, 1440])
@pytest.mark.parametrize(("name", "rows"), [("demo", ""), ("long", "tr:first-child ")])
def test_what_was_forgotten_is_seen_without_scrolling(
    browser: Browser, pages: dict[str, Path], name: str, rows: str, width: int
) -> None:
    browser.open(pages[name], width=width)
    assert is_in_sight(browser, f".outcomes thead th, .outcomes tbody {rows}td")


def test_all_columns_of_the_arms_are_seen_without_scrolling(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["kept ablation"], width=1440)
    assert browser.value("document.querySelector('table caption').textContent") == (
        "Arms of channels-text"
    )
    assert is_in_sight(browser, ".block:first-child thead th, .block:first-child tbody td")


def test_a_cut_off_table_is_noticed(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    text = pages["demo"].read_text(encoding="utf-8")
    wide = "<style>.outcomes { min-width: 90rem; } %s</style></head>"
    for rule, problem in (
        ("", ""),
        (".scroll { overflow: hidden; }", "wider than its container"),
        (".scroll::-webkit-scrollbar { height: 0; }", "scrolls without a visible bar"),
        (".scroll { overflow: visible; }", "past the window"),
    ):
        path = tmp_path / "wide.html"
        path.write_text(text.replace("</head>", wide % rule), encoding="utf-8")
        browser.open(path, width=1440)
        problems = cut_off(browser)
        assert any(problem in each for each in problems) if problem else not problems, problems
        assert not is_in_sight(browser, ".outcomes thead th")


def test_what_attacks_is_shown_as_text_and_nothing_runs(
    browser: Browser, pages: dict[str, Path]
) -> None:
    browser.open(pages["hostile"], width=1440)
    assert browser.value("document.scripts.length") == 0
    assert browser.value("typeof window.owned") == "undefined"
    handlers = "[...document.querySelectorAll('*')].flatMap(e => [...e.attributes])"
    assert browser.value(f"{handlers}.filter(a => a.name.startsWith('on')).length") == 0
    assert browser.value("document.querySelectorAll('img, iframe, object, embed').length") == 0
    assert browser.value("document.title").startswith("</title><script>")
    text = browser.value("document.body.textContent")
    for attack in ATTACKS[:3]:
        assert attack in text
    assert "\\u202ednammoc" in text
    assert "\\x1b[31mred" in text
    assert not {"\u202e", "\u2066", "\x1b", "\x00", "\u200b"} & set(text)
    assert_quiet(browser)


def test_the_policy_stops_a_script_that_got_in_all_the_same(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    text = pages["small"].read_text(encoding="utf-8")
    attack = "<script>window.owned = 1</script><img src=x onerror='window.owned = 1'>"
    path = tmp_path / "injected.html"
    path.write_text(text.replace("<main", f"{attack}<main"), encoding="utf-8")
    browser.open(path, width=1440)
    assert browser.value("document.scripts.length") == 1
    assert browser.value("typeof window.owned") == "undefined"
    assert any(
        "Content Security Policy" in e["entry"]["text"] for e in browser.named("Log.entryAdded")
    )
