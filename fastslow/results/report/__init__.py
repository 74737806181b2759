"""From the files of a run folder to a report: terminal, report.md, report.json, scores.csv.

Reads files only: no model, no tracker, no lock. `build_report` makes plain data and the others
write it down; the same files always give the same bytes.
"""

from fastslow.results.report.build import build_report
from fastslow.results.report.section import Report
from fastslow.results.report.terminal import render_terminal
from fastslow.results.report.write import (
    recompute_report,
    report_for_paper,
    save_report,
    write_report,
)

__all__ = [
    "Report",
    "build_report",
    "recompute_report",
    "render_terminal",
    "report_for_paper",
    "save_report",
    "write_report",
]
