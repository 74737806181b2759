"""The channel split of every task a run trained on, from the cells under each prompt.

Which cell is which: `measure/scores/channel_split.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from fastslow.core.types import Json, Metric
from fastslow.measure.scores.channel_split import SPLITS, CellName, channel_split, split_difference
from fastslow.measure.stats.intervals import PairedDifference
from fastslow.records.cells import CellTable, ExampleScores
from fastslow.records.events import ReoptimizedEvent
from fastslow.results.render import drawing
from fastslow.results.render.encoding import ends, with_limits
from fastslow.results.render.layout import Table, Text, difference_text, figure_row, metric_text
from fastslow.results.report.section import Records, Section

GAINS = ("gain_slow", "gain_fast", "gain_joint", "synergy")
"""Figures of learning; the others are of what came after."""
DRAWN = (
    ("gain_slow", "gained by weights", {"color": drawing.ACCENT, "marker": "s"}),
    ("gain_fast", "gained by prompt", {"color": drawing.ACCENT, "marker": "o"}),
    ("synergy", "synergy", {"color": drawing.MUTED, "marker": "D"}),
    ("wf", "lost by weights", {"color": drawing.LOSS, "marker": "s"}),
    ("pf", "lost by prompt", {"color": drawing.LOSS, "marker": "o"}),
)
"""Figures that are drawn, each with its words, colour and marker."""


@dataclass(frozen=True, slots=True)
class TaskSplit:
    """Gains of one task by weights and prompt, and the losses of each."""

    task: str
    same_text: bool
    """Whether the task is deployed with the prompt it was learned with."""
    budget: int | None
    """Rollouts with which its prompt was evolved again; None where that was not done."""
    figures: Mapping[str, Metric]
    differences: Mapping[str, PairedDifference]
    """Interval of each figure that has a value."""


class ChannelSplit(Section):
    """One split per trained task, in the order of the matrix; held-out ones have none."""

    chapter = "forgetting"
    drawing_name = "split"

    def __init__(self, records: Records) -> None:
        table = records.table
        budgets = {e.task: e.rollouts for e in records.events_of(ReoptimizedEvent)}
        self.splits = [
            _split(table, task, learned, budgets.get(task))
            for task in records.card.tasks
            if (learned := table.learned_row(task)) is not None
        ]

    def to_json(self) -> Mapping[str, object]:
        return {"channel_split": {split.task: _split_json(split) for split in self.splits}}

    def tables(self) -> Iterator[Table]:
        rows = []
        for name, split in SPLITS.items() if self.splits else ():
            figures = [_cell(split, name) for split in self.splits]
            rows.append(figure_row(name, split.formula, *figures))
        yield Table(
            "Channel split",
            ("figure", *(split.task for split in self.splits), "formula"),
            tuple(rows),
            "a(w,p): score with the weights after stage w under prompt p; p_j the prompt the task "
            "was learned with, p_T the deployed one, p* one evolved again. Gains and losses of "
            "weights and prompt, in score units, 95 % intervals over examples; of losses, positive "
            "= lost.",
        )

    def draw(self) -> drawing.Drawing | None:
        rows = [
            drawing.Row(split.task, words, value, ends(split.differences.get(name)), look)
            for split in self.splits[: drawing.MAX_TASKS]
            for name, words, look in DRAWN
            if (value := split.figures[name].value) is not None
        ]
        if not rows:
            return None

        return drawing.draw(
            self.drawing_name,
            "What weights and prompt brought, and lost",
            "Gains when the task was learned, against the untouched base under the seed prompt; "
            "losses since then. The table has the formulas. A figure that is not there is not "
            "defined or not measured; the table says why.",
            lambda figure: drawing.grouped_rows(figure, rows, "score, with 95 % interval"),
            height=drawing.grouped_height(rows),
        )


def _split_json(split: TaskSplit) -> dict[str, Json]:
    figures: dict[str, Json] = {}
    for name, metric in split.figures.items():
        change = split.differences.get(name)
        figures[name] = {**with_limits(metric, change), "n": change.n if change else 0}
    return {"same_text": split.same_text, "budget": split.budget, "figures": figures}


def _cell(split: TaskSplit, name: str) -> Text:
    change = split.differences.get(name)
    return difference_text(change) if change else metric_text(split.figures[name])


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
    labels = table.labels(task, sorted(examples))
    twins = {"learned_live": "learned_own", "final_own": "final_live"} if same_text else {}
    differences = {
        name: split_difference(name, columns, same_text=same_text, clusters=labels)
        for name, figure in figures.items()
        if figure.value is not None
        and all(cell in columns or twins.get(cell) in columns for cell in SPLITS[name].weights)
    }
    return TaskSplit(task, same_text, budget, figures, differences)
