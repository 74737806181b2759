"""report.html: one file that reads the whole report to a person, without a script."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fastslow.core.types import Json
from fastslow.records.events import ScoreRow
from fastslow.results.render.drawing import Drawing
from fastslow.results.render.html import render
from fastslow.results.render.layout import Table, Text
from fastslow.results.report.data import Report
from fastslow.results.report.sections.completions import task_samples
from fastslow.results.report.sections.lineage import lineages, population_table
from fastslow.results.report.sections.texts import PromptHistory
from fastslow.results.report.tables import tables
from fastslow.results.report.verdict import headline, key_figures, outcomes, verdict


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: figures, then tables."""

    id: str
    title: str
    intro: str
    drawings: tuple[Drawing, ...]
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What belongs into a section: names of figures, and how titles of tables begin."""

    id: str
    title: str
    intro: str = ""
    drawings: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()


PLAN = (
    _Plan("scores", "Scores", drawings=("stages", "tasks"), tables=("Tasks",)),
    _Plan("curves", "Curves", drawings=("cycles",), tables=("Learning curves", "Stages", "Shrink")),
    _Plan(
        "forgetting",
        "Forgetting, by channel",
        "A task's score can be lost by the weights, by its text, or by both together.",
        ("split",),
        ("Forgetting by task", "Channel split"),
    ),
    _Plan("drift", "Drift", drawings=("kl",), tables=("Forgetting on KL", "Drift")),
    _Plan(
        "plasticity",
        "Plasticity",
        "Whether the weights can still learn, which keeping old scores does not show.",
        ("plasticity",),
        ("Plasticity probe", "Proxies"),
    ),
    _Plan("geometry", "Geometry", drawings=("geometry",), tables=("Geometry", "Overlap")),
    _Plan(
        "texts",
        "Texts",
        "What each task is deployed with, and how it came about.",
        tables=("Deployed",),
    ),
    _Plan(
        "completions",
        "Completions",
        "A few of each kind, chosen by a hash of the examples' names. Characters that would not "
        "show are written as escapes.",
    ),
    _Plan("cost", "Cost", drawings=("cost",), tables=("Cost", "Reflection LM")),
    _Plan("formulas", "Formulas", tables=("Metrics",)),
    _Plan("other", "More"),
    _Plan("made", "How it was made", tables=("Notes",)),
)
"""The page in reading order. Tables that no section names come under "More"."""
FIRST_SCREEN = ("Score matrix",)
"""Tables that the first screen shows in another form."""


def page(
    report: Report,
    rows: Iterable[ScoreRow],
    history: PromptHistory,
    drawings: Sequence[Drawing],
) -> str:
    """The text of report.html.

    Args:
        report: The run's report.
        rows: Every score row, for the completions.
        history: Every text the run kept.
        drawings: The run's figures.
    """
    samples = task_samples(report, rows)
    return render(
        "report.html",
        {
            "title": f"{report.run} · fastslow report",
            "report": report,
            "headline": headline(report),
            "verdict": verdict(report),
            "keys": key_figures(report),
            "outcomes": outcomes(report),
            "sections": _sections(report, history, drawings),
            "lineages": lineages(report.prompts, history),
            "samples": samples,
            "command": shlex.join(report.command),
        },
    )


def _sections(
    report: Report, history: PromptHistory, drawings: Sequence[Drawing]
) -> tuple[Section, ...]:
    made = {drawing.name: drawing for drawing in drawings}
    left = [table for table in tables(report) if table.title not in FIRST_SCREEN]
    sections = []
    for plan in PLAN:
        known = tuple(table for table in left if table.title.startswith(plan.tables or ("\0",)))
        left = [table for table in left if table not in known]
        if plan.id == "texts" and history.populations:
            known = (*known, population_table(history))
        elif plan.id == "made":
            known = (*known, _environment(report.environment))
        found = tuple(made[name] for name in plan.drawings if name in made)
        sections.append(Section(plan.id, plan.title, plan.intro, found, known))
    filled = [
        Section(s.id, s.title, s.intro, s.drawings, tuple(left)) if s.id == "other" else s
        for s in sections
    ]
    return tuple(
        s for s in filled if s.drawings or s.tables or s.id in ("texts", "completions", "made")
    )


def _environment(environment: Mapping[str, Json]) -> Table:
    rows = []
    for name, value in environment.items():
        inner = value.items() if isinstance(value, Mapping) else [("", value)]
        for part, leaf in inner:
            rows.append((Text(f"{name} {part}".strip()), Text(f"{leaf}")))
    return Table("Environment", ("of the machine", "value"), tuple(rows))
