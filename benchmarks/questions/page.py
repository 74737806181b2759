"""Writes docs/questions.md from the kept figures."""

from benchmarks.keeping import ROOT

PAGE = ROOT / "docs" / "questions.md"


def page() -> str:
    """The text of the page."""
    return ""
