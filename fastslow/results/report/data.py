"""A report as plain data: what every part of it needs, and its sections."""

from dataclasses import dataclass
from typing import TypeVar

from fastslow.results.render.drawing import Drawing
from fastslow.results.render.layout import Table
from fastslow.results.report.cells import Cell, CellTable
from fastslow.results.report.reading import RunCard
from fastslow.results.report.section import Section

S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Report(RunCard):
    """Everything a report says."""

    table: CellTable
    """The example scores behind the cells."""
    cells: tuple[tuple[Cell, ...], ...]
    """T + 1 rows; row 0 is the base."""
    sections: tuple[Section, ...]
    """In the order of report.md."""

    def section(self, kind: type[S]) -> S:
        """The section of that class."""
        return next(section for section in self.sections if isinstance(section, kind))

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
