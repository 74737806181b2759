"""The channel split of every task a run trained on, from the cells under each prompt.

Which cell is which: `measure/scores/channel_split.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Self

from fastslow.core.types import Json, Metric
from fastslow.measure.scores.channel_split import SPLITS, CellName, channel_split, split_difference
from fastslow.measure.stats.intervals import PairedDifference
from fastslow.records.events import ReoptimizedEvent
from fastslow.results.render.drawing import ACCENT, LOSS, MAX_TASKS, MUTED, Drawing, draw, label
from fastslow.results.render.encoding import with_limits
from fastslow.results.render.layout import Table, Text, difference, metric_text
from fastslow.results.report.cells import CellTable, ExampleScores
from fastslow.results.report.section import Records, Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAINS = ("gain_slow", "gain_fast", "gain_joint", "synergy")
"""Figures of learning; the others are of what came after."""
DRAWN = (
    ("gain_slow", "gained by weights", ACCENT, "s"),
    ("gain_fast", "gained by prompt", ACCENT, "o"),
    ("synergy", "synergy", MUTED, "D"),
    ("wf", "lost by weights", LOSS, "s"),
    ("pf", "lost by prompt", LOSS, "o"),
)
"""Figures that are drawn, each with its words, colour and marker."""


@dataclass(frozen=True, slots=True)
class TaskSplit:
    """What weights and prompt brought to one task, and what each of them lost."""

    task: str
    same_text: bool
    """Whether the task is deployed with the prompt it was learned with."""
    budget: int | None
    """Rollouts with which its prompt was evolved again; None where that was not done."""
    figures: Mapping[str, Metric]
    differences: Mapping[str, PairedDifference]
    """Interval of each figure that has a value."""


@dataclass(frozen=True, slots=True)
class ChannelSplit(Section):
    """One split per trained task, in the order of the matrix."""

    splits: tuple[TaskSplit, ...]

    chapter = "forgetting"
    drawing_names = ("split",)

    @classmethod
    def compute(cls, records: Records) -> Self:
        """Split the trained tasks; held-out ones have no split."""
        table = records.table
        budgets = {e.task: e.rollouts for e in records.events_of(ReoptimizedEvent)}
        splits = [
            _split(table, task, learned, budgets.get(task))
            for task in records.card.tasks
            if (learned := table.learned_row(task)) is not None
        ]
        return cls(tuple(splits))

    def to_json(self) -> Mapping[str, object]:
        """By task."""
        return {"channel_split": {split.task: _split_json(split) for split in self.splits}}

    def tables(self) -> Sequence[Table]:
        """One row per figure, one column per task."""
        rows = []
        for name, split in SPLITS.items() if self.splits else ():
            figures = [_cell(split, name) for split in self.splits]
            rows.append((Text(name, is_code=True), *figures, Text(split.formula, is_code=True)))
        return [
            Table(
                "Channel split",
                ("figure", *(split.task for split in self.splits), "formula"),
                tuple(rows),
                "a(w,p): score with the weights after stage w under prompt p; p_j the prompt the "
                "task was learned with, p_T the deployed one, p* one evolved again. Gains and "
                "losses of weights and prompt, in score units, 95 % intervals over examples; of "
                "losses, positive = lost.",
            )
        ]

    def drawings(self) -> Sequence[Drawing | None]:
        """What each channel brought to a task and lost of it."""
        rows = [
            (split.task, words, value, split.differences.get(name), colour, marker)
            for split in self.splits[:MAX_TASKS]
            for name, words, colour, marker in DRAWN
            if (value := split.figures[name].value) is not None
        ]
        if not rows:
            return [None]

        def paint(figure: "Figure") -> None:
            axes = figure.add_subplot()
            y, ticks = -1.0, []
            for task, lines in groupby(rows, key=lambda row: row[0]):
                place = axes.get_yaxis_transform()
                axes.text(0, y + 1.05, label(task), weight="bold", va="center", transform=place)
                y += 0.9
                for _, _, value, change, colour, marker in lines:
                    y += 1
                    if change is not None and change.low is not None and change.high is not None:
                        axes.plot([change.low, change.high], [y, y], color=colour, lw=1)
                    axes.plot(value, y, marker, color=colour)
                    ticks.append(y)
            axes.axvline(0, color=MUTED, lw=0.8)
            axes.set_yticks(ticks, [row[1] for row in rows])
            axes.set_ylim(y + 0.7, -0.7)
            axes.set_xlabel("score, with 95 % interval")
            axes.grid(visible=False, axis="y")
            axes.grid(visible=True, axis="x")
            axes.tick_params(axis="y", length=0)

        num_tasks = len({row[0] for row in rows})
        return [
            draw(
                "split",
                "What weights and prompt brought, and lost",
                "Gains when the task was learned, against the untouched base under the seed "
                "prompt; losses since then. The table has the formulas. A figure that is not there "
                "is not defined or not measured; the table says why.",
                paint,
                height=0.8 + 0.2 * len(rows) + 0.2 * num_tasks,
            )
        ]


def _split_json(split: TaskSplit) -> dict[str, Json]:
    figures: dict[str, Json] = {}
    for name, metric in split.figures.items():
        change = split.differences.get(name)
        figures[name] = {**with_limits(metric, change), "n": change.n if change else 0}
    return {"same_text": split.same_text, "budget": split.budget, "figures": figures}


def _cell(split: TaskSplit, name: str) -> Text:
    change = split.differences.get(name)
    return Text(difference(change)) if change else metric_text(split.figures[name])


def _split(table: CellTable, task: str, learned: int, budget: int | None) -> TaskSplit:
    last = len(table.stages)
    same_text = table.text(learned, task) == table.text(last, task)
    scores: dict[CellName, ExampleScores] = {
        "base_seed": table.scores(0, task, "seed"),
        "base_own": table.scores(0, task, "own"),
        "learned_seed": table.scores(learned, task, "seed"),
        "learned_own": table.deployed(learned, task),
        "final_own": table.scores(last, task, "own"),
        "final_live": table.deployed(last, task),
        "final_reopt": table.scores(last, task, "reopt"),
    }
    cells = {name: by_example for name, by_example in scores.items() if by_example}
    means = {name: sum(cell.values()) / len(cell) for name, cell in cells.items()}
    figures = channel_split(means, same_text=same_text, budget=budget)
    if learned == last:
        reason = "learned in the last stage: nothing came after"
        figures |= {
            name: replace(figure, value=None, reason=reason)
            for name, figure in figures.items()
            if name not in GAINS
        }
    examples = set.union(set(), *(cell.keys() for cell in cells.values()))
    columns = {
        name: [cell[example] for example in sorted(examples)]
        for name, cell in cells.items()
        if cell.keys() == examples
    }
    differences = {
        name: split_difference(name, columns, same_text=same_text)
        for name, figure in figures.items()
        if figure.value is not None and _has_columns(columns, name, same_text)
    }
    return TaskSplit(task, same_text, budget, figures, differences)


def _has_columns(columns: Mapping[CellName, Sequence[float]], name: str, same_text: bool) -> bool:
    """Whether every cell that a figure needs was scored on all examples."""
    twins = {"learned_live": "learned_own", "final_own": "final_live"} if same_text else {}
    return all(cell in columns or twins.get(cell) in columns for cell in SPLITS[name].weights)
