"""A report, its sections, and the records that they are computed from."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, TypeVar, cast

from fastslow.records.cells import CellTable
from fastslow.records.data import golds_of
from fastslow.records.events import Event, GuessEvent
from fastslow.records.jsonl import read_events, read_scores
from fastslow.records.run_folder import require_no_links
from fastslow.results.reading import read_card, require_places, steps_per_cycle
from fastslow.results.render.drawing import Drawing
from fastslow.results.render.layout import Table

S = TypeVar("S", bound="Section")
E = TypeVar("E")


class Records:
    """The records of one run folder, read once, and the sections computed from them.

    `CheckpointError` and `EvaluationError` as in `build_report`.
    """

    def __init__(self, path: Path) -> None:
        require_no_links(path)
        self.path = path
        self.card = read_card(path / "run.json")
        self.scores = read_scores(path / "scores.jsonl")
        self.events = read_events(path / "events.jsonl")
        self._of_kind: dict[type, list[Event]] = {}
        for event in self.events:
            self._of_kind.setdefault(type(event), []).append(event)
        require_places(self.scores, self.events, self.card.stages, path)
        golds_of(self.scores, path / "scores.jsonl")  # refuses two for one example
        self.steps_per_cycle = steps_per_cycle(path)
        """Optimizer updates of a full cycle."""
        tasks, stages = self.card.tasks, self.card.stages
        self.table = CellTable(self.scores, stages, self.events)
        self.cells = tuple(
            tuple(self.table.cell(row, task) for task in tasks) for row in range(len(stages) + 1)
        )
        """T + 1 rows, a column per task; row 0 is the base."""
        self.matrix = self.table.matrix(tasks)
        floors = [self.table.base_floor(task).value for task in tasks]
        self.noise_floor = max((floor for floor in floors if floor is not None), default=None)
        """The largest of any task; None where no base evaluation was repeated."""
        self.guesses = {event.task: event.guess for event in self.events_of(GuessEvent)}
        """By task, what guessing scores; empty for a run of a version that did not grade it."""
        self._sections: dict[type[Section], Section] = {}

    def events_of(self, kind: type[E]) -> list[E]:
        """Every event of a class, in order."""
        return cast(list[E], self._of_kind.get(kind, []))

    def section(self, kind: type[S]) -> S:
        """The section of that class, computed at most once."""
        if kind not in self._sections:
            self._sections[kind] = kind(self)
        section = self._sections[kind]
        assert isinstance(section, kind)
        return section


class Section:
    """One subject of a report, computed from the records of one run.

    A new subject is a new subclass and a line in `build.SECTIONS`. A run may not have got far
    enough for a section to have anything to show. `CheckpointError` if a file that only this
    section reads is damaged.
    """

    chapter: ClassVar[str] = "other"
    """Where it stands in report.html: an id of `page.CHAPTERS`; empty for the first screen."""
    drawing_name: ClassVar[str] = ""
    """Stem of the files of its drawing; empty if it never draws one."""

    def __init__(self, records: Records) -> None:
        """Compute the figures."""

    def tables(self) -> Iterable[Table]:
        """For report.md; tables without rows are left out."""
        return ()

    def page_tables(self) -> Iterable[Table]:
        """The same for report.html."""
        return self.tables()

    def draw(self) -> Drawing | None:
        """The drawing of that name; None where there is nothing to draw."""
        return None

    def to_json(self) -> Mapping[str, object]:
        """Its keys of report.json, for `encoding.json_text`."""
        return {}


class Report(Records):
    """Everything a report says."""

    def __init__(self, path: Path, kinds: Iterable[type[Section]]) -> None:
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


def stage_label(stage: int, task: str) -> str:
    """A stage as tables name it, from its index: its number, from 1, and its task."""
    return f"{stage + 1} {task}"
