"""From the files of a run folder to a report: terminal, report.md, report.json, scores.csv.

Reads files only: no model, no tracker, no lock. `build_report` makes plain data, the other two
write it down; the same files always give the same bytes.
"""

from fastslow.report.computing import build_report
from fastslow.report.data import Report
from fastslow.report.files import recompute_report, write_report
from fastslow.report.terminal import render_terminal

__all__ = ["Report", "build_report", "recompute_report", "render_terminal", "write_report"]
