"""report.html: one file that reads the whole report to a person, without a script."""

import shlex
from collections.abc import Sequence

from fastslow.results.render.drawing import Drawing
from fastslow.results.render.html import render
from fastslow.results.render.layout import narrow
from fastslow.results.report.section import Report
from fastslow.results.report.sections.completions import Completions
from fastslow.results.report.sections.cost import Cost
from fastslow.results.report.sections.metrics import Metrics
from fastslow.results.report.sections.prompts import Prompts
from fastslow.results.report.sections.scores import GUESS_NOTE, guess_rows
from fastslow.results.report.sections.tasks import Drops, Tasks
from fastslow.results.report.verdict import verdict_sentences

CHAPTERS = (
    ("scores", "Scores", ""),
    ("curves", "Curves", ""),
    (
        "forgetting",
        "Forgetting, by channel",
        "A task's score can be lost by the weights, by its prompt, or by both together.",
    ),
    ("drift", "Drift", ""),
    (
        "plasticity",
        "Plasticity",
        "Whether the weights can still learn, which keeping old scores does not show.",
    ),
    ("geometry", "Geometry", ""),
    ("prompts", "Prompts", "The prompt of each task in deployment, and where it came from."),
    (
        "completions",
        "Completions",
        "A few of each kind, chosen by a hash of the examples' names. Characters that would not "
        "show are written as escapes.",
    ),
    ("cost", "Cost", ""),
    ("formulas", "Formulas", ""),
    ("other", "More", ""),
    ("origin", "How it was made", ""),
)
"""Id, title and introduction of the parts of the page, in reading order."""
ALWAYS = ("prompts", "completions", "origin")
"""Chapters with content of their own in the template."""


def page(report: Report, drawings: Sequence[Drawing]) -> str:
    """The text of report.html, with the figures of `Report.drawings`."""
    first, *others = verdict_sentences(report)
    return render(
        "report.html",
        {
            "title": f"{report.card.run} · fastslow report",
            "report": report,
            "headline": first,
            "sentences": others,
            "metrics": report.section(Metrics),
            "cost": report.section(Cost),
            "guess_rows": list(guess_rows(report.guesses, report.card.tasks)),
            "guess_note": GUESS_NOTE,
            "drops": [table for table in report.section(Drops).tables() if table.rows],
            "outcomes": report.section(Tasks).outcomes(),
            "chapters": _chapters(report, drawings),
            "prompts": report.section(Prompts),
            "samples": report.section(Completions).samples,
            "command": shlex.join(report.card.command),
        },
    )


def _chapters(report: Report, drawings: Sequence[Drawing]) -> list[dict[str, object]]:
    """The chapters that have something to show, each with its figures and tables."""
    chapters: list[dict[str, object]] = []
    for name, title, intro in CHAPTERS:
        sections = [section for section in report.sections if section.chapter == name]
        stems = [section.drawing_name for section in sections]
        figures = tuple(drawing for drawing in drawings if drawing.name in stems)
        tables = tuple(narrow(t) for s in sections for t in s.page_tables() if t.rows)
        if figures or tables or name in ALWAYS:
            texts = {"id": name, "title": title, "intro": intro}
            chapters.append({**texts, "drawings": figures, "tables": tables})
    return chapters
