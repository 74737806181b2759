"""Pages that are written from what was kept."""

from benchmarks import scale
from benchmarks.keeping import REFERENCE
from benchmarks.questions.page import PAGE
from benchmarks.questions.page import page as questions
from benchmarks.results import readme, readme_block, results
from fastslow.results.report import build_report
from tests.support.paths import ROOT


def test_results_and_readme_are_what_the_reference_runs_say() -> None:
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == results()
    assert PAGE.read_text(encoding="utf-8") == questions()
    assert scale.PAGE.read_text(encoding="utf-8") == scale.page()
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme(page, readme_block(build_report(REFERENCE / "demo"))) == page
