"""A report: the records of a run with every section computed from them."""

from collections.abc import Iterable
from pathlib import Path

from fastslow.results.render.drawing import Drawing
from fastslow.results.render.layout import Table
from fastslow.results.report.section import Records, Section


class Report(Records):
    """Everything a report says."""

    def __init__(self, path: Path, kinds: Iterable[type[Section]]) -> None:
        """Read a run folder and compute the sections of these classes."""
        super().__init__(path)
        self.sections = tuple(self.section(kind) for kind in kinds)
        """In the order of report.md."""

    def tables(self) -> list[Table]:
        """The tables of report.md."""
        return [table for section in self.sections for table in section.tables() if table.rows]

    def drawings(self) -> tuple[Drawing, ...]:
        """Every figure for which there is something to draw."""
        drawings = (section.draw() for section in self.sections)
        return tuple(drawing for drawing in drawings if drawing is not None)

    @property
    def rows_measured(self) -> int:
        """Rows of the matrix in which every task has a score, counted from the base on."""
        complete = [all(cell.score is not None for cell in row) for row in self.cells]
        return [*complete, False].index(False)
