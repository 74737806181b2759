"""The score matrix, and the decorators that turn a formula on it into a metric.

In the formulas of `accuracy.py`, `transfer.py`, `forgetting.py` and `intransigence.py` stages and
tasks count from 1, task j is the one stage j trains on, T is the last stage, row 0 is the untouched
base: `R[i, j]` is the score on task j after stage i. The same formula after stage k is
`name(matrix.upto(k))`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Concatenate, Generic, ParamSpec

from fastslow.core.errors import EvaluationError
from fastslow.core.types import Metric, PromptPolicy
from fastslow.measure.stats.figure import Undefined, figure

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class ScoreMatrix:
    """Scores of every task in every row: row 0 the base, row i after stage i.

    `EvaluationError` for a missing or short row, a stage whose task has no column, and a score
    outside [0, 1].
    """

    tasks: tuple[str, ...]
    """Column names. A task that no stage visits is held out and enters no formula."""
    stages: tuple[str, ...]
    """The task each stage trains on, in training order."""
    rows: tuple[tuple[float | None, ...], ...]
    """`len(stages) + 1` rows of `len(tasks)` scores in [0, 1]; None where not measured."""
    _by_stage: tuple[tuple[float | None, ...], ...] = field(init=False, repr=False, compare=False)
    """The rows with a column per stage, that of its task."""

    def __post_init__(self) -> None:
        if len(self.rows) != len(self.stages) + 1:
            raise EvaluationError(
                f"score matrix: {len(self.stages)} stages need {len(self.stages) + 1} rows (row 0 "
                f"is the base), got {len(self.rows)}. Give unmeasured rows as None."
            )
        unknown = [stage for stage in self.stages if stage not in self.tasks]
        if unknown or len(set(self.tasks)) != len(self.tasks):
            raise EvaluationError(
                f"score matrix: columns {list(self.tasks)} must be distinct and hold every stage's "
                f"task, got stages {list(self.stages)}. Name each scored task once."
            )
        for i, row in enumerate(self.rows):
            if len(row) != len(self.tasks):
                raise EvaluationError(
                    f"score matrix: row {i} has {len(row)} scores, expected {len(self.tasks)}, "
                    "one per task. Give unmeasured ones as None."
                )
            for task, score in zip(self.tasks, row, strict=True):
                if score is not None and not 0 <= score <= 1:
                    raise EvaluationError(
                        f"score matrix: row {i}, task {task!r}: got {score}. A score is in "
                        "[0, 1], higher is better; rescale it in the task's grader."
                    )
        columns = [self.tasks.index(stage) for stage in self.stages]
        by_stage = tuple(tuple([row[column] for column in columns]) for row in self.rows)
        object.__setattr__(self, "_by_stage", by_stage)  # formulas look scores up by the million

    @property
    def num_stages(self) -> int:
        """T, the number of stages."""
        return len(self.stages)

    def upto(self, k: int) -> "ScoreMatrix":
        """The matrix as it stood after stage k, 0 <= k <= T: k stages and k + 1 rows."""
        if not 0 <= k <= self.num_stages:
            raise IndexError(f"stage {k} of a matrix with {self.num_stages} stages")
        return ScoreMatrix(self.tasks, self.stages[:k], self.rows[: k + 1])

    def __getitem__(self, index: tuple[int, int]) -> float:
        """R[i, j]: the score after stage i (0 is the base) on the task of stage j (from 1).

        Raises:
            Undefined: The cell was not measured.
        """
        i, j = index
        assert i >= 0, index
        assert j >= 1, index
        score = self._by_stage[i][j - 1]
        if score is None:
            raise Undefined(f"not measured: task {self.stages[j - 1]!r} in row {i}")
        return score


def headline_policy(stages: tuple[str, ...], row: int, task: str) -> PromptPolicy:
    """The text a cell of the headline matrix is scored with.

    `live`, the text in deployment, once one of `stages` up to `row` has visited the task; `seed`
    until then, so that forward transfer compares equal texts.
    """
    return "live" if task in stages[:row] else "seed"


def metric(
    formula: str,
) -> Callable[[Callable[[ScoreMatrix], float]], Callable[[ScoreMatrix], Metric]]:
    """Turn a function on the matrix into a metric of its name: a value, or None and a reason."""

    def declare(function: Callable[[ScoreMatrix], float]) -> Callable[[ScoreMatrix], Metric]:
        @functools.wraps(function)
        def measure(R: ScoreMatrix) -> Metric:
            return figure(function.__name__, formula, lambda: function(each_task_once(R)))

        return measure

    return declare


class MeanMetric(Generic[P]):
    """A metric that is the mean over tasks of a term.

    Called, it gives the metric; `term` gives one task's part, or raises `Undefined`.
    """

    def __init__(
        self,
        term: Callable[Concatenate[ScoreMatrix, int, P], float],
        over: Callable[[ScoreMatrix], range],
        formula: str,
    ) -> None:
        self.term, self.over, self.formula = term, over, formula
        self.__doc__ = term.__doc__

    def __call__(self, R: ScoreMatrix, /, *args: P.args, **kwargs: P.kwargs) -> Metric:
        """The mean of the terms, or None and a reason."""

        def value() -> float:
            tasks = self.over(each_task_once(R))
            return fmean(self.term(R, j, *args, **kwargs) for j in tasks)

        return figure(self.term.__name__, self.formula, value)


def mean_over(
    over: Callable[[ScoreMatrix], range], formula: str
) -> Callable[[Callable[Concatenate[ScoreMatrix, int, P], float]], MeanMetric[P]]:
    """Turn a function of the matrix and a task's stage j into the metric that is its mean.

    The mean is over `every_stage` or `earlier_tasks`; `formula` names its source, in one line.
    """
    return lambda term: MeanMetric(term, over, formula)


def each_task_once(R: ScoreMatrix) -> ScoreMatrix:
    """The same matrix, if the formulas apply, which know one stage per task.

    Raises:
        Undefined: There is no stage, or two stages train on one task.
    """
    if R.num_stages == 0:
        raise Undefined("no stage has been measured")
    if len(set(R.stages)) < R.num_stages:
        task = next(task for task in R.stages if R.stages.count(task) > 1)
        visits = [str(i) for i, name in enumerate(R.stages, start=1) if name == task]
        raise Undefined(
            f"task {task!r} is visited by stages {' and '.join(visits)}; "
            "the formula needs one visit per task"
        )
    return R


def every_stage(R: ScoreMatrix) -> range:
    """Every j <= T."""
    return range(1, R.num_stages + 1)


def earlier_tasks(R: ScoreMatrix) -> range:
    """Every j < T.

    Raises:
        Undefined: There is no earlier task.
    """
    if R.num_stages < 2:
        raise Undefined("needs at least two stages, this run has one")
    return range(1, R.num_stages)
