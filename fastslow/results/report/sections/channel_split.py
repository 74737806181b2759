"""The channel split of every task a run trained on, from the cells under each text.

Which cell is which: `measure/scores/channel_split.py`. Called by `results/report/data.py` alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fastslow.core.types import Json, Metric
from fastslow.measure.scores.channel_split import SPLITS, CellName, channel_split, split_difference
from fastslow.measure.stats.intervals import PairedDifference
from fastslow.results.report.cells import CellTable, ExampleScores

GAINS = ("gain_slow", "gain_fast", "gain_joint", "synergy")
"""Figures of learning; the others are of what came after."""


@dataclass(frozen=True, slots=True)
class TaskSplit:
    """What weights and text brought to one task, and what each of them lost."""

    task: str
    same_text: bool
    """Whether the task is deployed with the text it was learned with."""
    budget: int | None
    """Rollouts with which its text was evolved again; None where that was not done."""
    figures: Mapping[str, Metric]
    differences: Mapping[str, PairedDifference]
    """Interval of each figure that has a value."""

    def to_json(self) -> dict[str, Json]:
        """Plain data, as docs/report-schema.md describes it."""
        return {
            "same_text": self.same_text,
            "budget": self.budget,
            "figures": {name: self._figure(metric) for name, metric in self.figures.items()},
        }

    def _figure(self, metric: Metric) -> dict[str, Json]:
        found = self.differences.get(metric.name)
        return {
            "value": metric.value,
            "reason": metric.reason,
            "formula": metric.formula,
            "low": found.low if found else None,
            "high": found.high if found else None,
            "n": found.n if found else 0,
        }


def channel_splits(
    table: CellTable, tasks: Sequence[str], budgets: Mapping[str, int]
) -> tuple[TaskSplit, ...]:
    """One split per trained task, in the order of the matrix.

    Args:
        table: The cells.
        tasks: Columns of the matrix; held-out ones have no split.
        budgets: Rollouts with which a task's text was evolved again, by task.
    """
    made = []
    for task in tasks:
        learned = table.learned_row(task)
        if learned is not None:
            made.append(_split(table, task, learned, budgets.get(task)))
    return tuple(made)


def _split(table: CellTable, task: str, learned: int, budget: int | None) -> TaskSplit:
    last = len(table.stages)
    same_text = table.text(learned, task) == table.text(last, task)
    found: dict[CellName, ExampleScores] = {
        "base_seed": table.scores(0, task, "seed"),
        "base_own": table.scores(0, task, "own"),
        "learned_seed": table.scores(learned, task, "seed"),
        "learned_own": table.deployed(learned, task),
        "final_own": table.scores(last, task, "own"),
        "final_live": table.deployed(last, task),
        "final_reopt": table.scores(last, task, "reopt"),
    }
    cells = {name: scores for name, scores in found.items() if scores}
    means = {name: sum(scores.values()) / len(scores) for name, scores in cells.items()}
    figures = channel_split(means, same_text=same_text, budget=budget)
    if learned == last:
        reason = "learned in the last stage: nothing came after"
        figures |= {
            name: replace(figure, value=None, reason=reason)
            for name, figure in figures.items()
            if name not in GAINS
        }
    whole = set.union(set(), *(scores.keys() for scores in cells.values()))
    columns = {
        name: [scores[example] for example in sorted(whole)]
        for name, scores in cells.items()
        if scores.keys() == whole
    }
    differences = {}
    for name, figure in figures.items():
        if figure.value is not None and _has(columns, name, same_text):
            differences[name] = split_difference(name, columns, same_text=same_text)
    return TaskSplit(task, same_text, budget, figures, differences)


def _has(columns: Mapping[CellName, Sequence[float]], name: str, same_text: bool) -> bool:
    """Whether every cell that a figure needs was scored on all examples."""
    twins = {"learned_live": "learned_own", "final_own": "final_live"} if same_text else {}
    return all(cell in columns or twins.get(cell) in columns for cell in SPLITS[name].weights)
