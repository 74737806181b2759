"""The metrics that are means over tasks of means over examples, as the value of each example."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from fastslow.measure.stats.over_seeds import ByTask, difference


class ScoredRun(Protocol):
    """A run with the scores behind every cell of its matrix."""

    @property
    def stages(self) -> Sequence[str]:
        """The task of each stage, in training order."""

    @property
    def cells(self) -> Mapping[tuple[int, str], Mapping[str, float]]:
        """By row of the matrix and task, the score of each example."""


def final_scores(run: ScoredRun) -> ByTask:
    """Score of every trained task in the last row: its mean is `average_accuracy`."""
    last, tasks = len(run.stages), dict.fromkeys(run.stages)
    return _if_complete(tasks, {task: run.cells[last, task] for task in tasks})


def learned_scores(run: ScoredRun) -> ByTask:
    """Score of every task right after its stage: its mean is `learning_accuracy`.

    Nothing where a task was visited twice.
    """
    if len(set(run.stages)) < len(run.stages):
        return {}
    learned = {task: run.cells[row, task] for row, task in enumerate(run.stages, start=1)}
    return _if_complete(run.stages, learned)


def changes(run: ScoredRun) -> ByTask:
    """Last row minus the row it was learned in, of all but the last task: `bwt_gem`."""
    return _if_complete(run.stages[:-1], difference(final_scores(run), learned_scores(run)))


def later_gains(run: ScoredRun) -> ByTask:
    """Gain over the base in the stage of each task but the first."""
    later = run.stages[1:]
    base = {task: run.cells[0, task] for task in later}
    return _if_complete(later, difference(learned_scores(run), base))


def final_gain(run: ScoredRun, task: str) -> ByTask:
    """Last row minus the base on one task."""
    last, base = ({task: run.cells[row, task]} for row in (len(run.stages), 0))
    return difference(last, base)


def _if_complete(tasks: Iterable[str], values: ByTask) -> ByTask:
    """The values of these tasks; nothing where one of them is missing."""
    chosen = {task: values.get(task, {}) for task in tasks}
    return chosen if all(chosen.values()) else {}


PER_EXAMPLE: Mapping[str, Callable[[ScoredRun], ByTask]] = {
    "average_accuracy": final_scores,
    "learning_accuracy": learned_scores,
    "bwt_gem": changes,
}
"""By metric, the values of each example whose mean it is."""
