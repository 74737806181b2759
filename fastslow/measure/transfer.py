"""Accuracy, transfer and forgetting as pure functions on the score matrix.

Owns every formula that needs only scores: one function each, its text and source in the decorator
above it and in `FORMULAS`. In the formulas stages and tasks count from 1, task j is the one stage j
trains on, T is the last stage, row 0 is the untouched base: `R[i, j]` is the score on task j after
stage i. The same formula after stage k is `name(matrix.upto(k))`. Scores come from
`measure/evaluator.py` through the records; uncertainty is `measure/uncertainty.py`'s.
"""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Concatenate, ParamSpec

from fastslow.errors import EvaluationError
from fastslow.types import Metric, PromptPolicy

P = ParamSpec("P")

FORMULAS: dict[str, str] = {}
"""Metric name to its formula and source, in one line; filled by the decorators below."""


class Undefined(Exception):
    """A formula has no value on this matrix; the message is the reason given in the report."""


@dataclass(frozen=True, slots=True)
class ScoreMatrix:
    """Scores of every task in every row: row 0 the base, row i after stage i."""

    tasks: tuple[str, ...]
    """Column names. A task that no stage visits is held out and enters no formula."""
    stages: tuple[str, ...]
    """The task each stage trains on, in training order."""
    rows: tuple[tuple[float | None, ...], ...]
    """`len(stages) + 1` rows of `len(tasks)` scores in [0, 1]; None where not measured."""

    def __post_init__(self) -> None:
        """Check shapes, names and ranges.

        Raises:
            EvaluationError: A row is missing or too short, a stage's task has no column, or a
                score lies outside [0, 1].
        """
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
                if score is not None and not (math.isfinite(score) and 0 <= score <= 1):
                    raise EvaluationError(
                        f"score matrix: row {i}, task {task!r}: got {score}. A score is in "
                        "[0, 1], higher is better; rescale it in the task's grader."
                    )

    @property
    def num_stages(self) -> int:
        """T, the number of stages."""
        return len(self.stages)

    def upto(self, k: int) -> "ScoreMatrix":
        """The matrix as it stood after stage k: the first k stages and k + 1 rows.

        Args:
            k: Stages to keep, from 0 to T.
        """
        if not 0 <= k <= self.num_stages:
            raise IndexError(f"stage {k} of a matrix with {self.num_stages} stages")
        return ScoreMatrix(self.tasks, self.stages[:k], self.rows[: k + 1])

    def __getitem__(self, index: tuple[int, int]) -> float:
        """R[i, j]: the score after stage i (0 is the base) on the task of stage j (from 1).

        Raises:
            Undefined: The cell was not measured.
        """
        i, j = index
        assert 0 <= i <= self.num_stages, index
        assert 1 <= j <= self.num_stages, index
        score = self.rows[i][self.tasks.index(self.stages[j - 1])]
        if score is None:
            raise Undefined(f"not measured: task {self.stages[j - 1]!r} in row {i}")
        return score


def headline_policy(stages: tuple[str, ...], row: int, task: str) -> PromptPolicy:
    """The text a cell of the headline matrix is scored with: `seed` before the task's stage.

    Args:
        stages: The task each stage trains on, in training order.
        row: Row of the matrix, 0 the base.
        task: A column's name.

    Returns:
        `live`, the text in deployment, once a stage has visited the task; `seed` until then, so
        that forward transfer compares equal texts.
    """
    return "live" if task in stages[:row] else "seed"


def _metric(
    formula: str,
) -> Callable[
    [Callable[Concatenate[ScoreMatrix, P], float]], Callable[Concatenate[ScoreMatrix, P], Metric]
]:
    """Turn a formula into a metric of the function's name: a value, or None and a reason."""

    def declare(
        function: Callable[Concatenate[ScoreMatrix, P], float],
    ) -> Callable[Concatenate[ScoreMatrix, P], Metric]:
        name = function.__name__
        FORMULAS[name] = formula

        @functools.wraps(function)
        def measured(R: ScoreMatrix, /, *args: P.args, **kwargs: P.kwargs) -> Metric:
            try:
                _each_task_once(R)
                return Metric(name, function(R, *args, **kwargs), None, formula)
            except Undefined as reason:
                return Metric(name, None, str(reason), formula)

        return measured

    return declare


def _each_task_once(R: ScoreMatrix) -> None:
    if R.num_stages == 0:
        raise Undefined("no stage has been measured")
    for task in R.stages:
        if R.stages.count(task) > 1:
            visits = [str(i) for i, name in enumerate(R.stages, start=1) if name == task]
            raise Undefined(
                f"task {task!r} is visited by stages {' and '.join(visits)}; "
                "the formula needs one visit per task"
            )


def _stages(R: ScoreMatrix) -> range:
    return range(1, R.num_stages + 1)


def _earlier(R: ScoreMatrix) -> range:
    """Every j < T; undefined when there is no earlier task."""
    if R.num_stages < 2:
        raise Undefined("needs at least two stages, this run has one")
    return range(1, R.num_stages)


# C.1 Accuracy


@_metric("1/T sum_{j<=T} R[T,j] (Lopez-Paz & Ranzato 2017, arXiv 1706.08840)")
def average_accuracy(R: ScoreMatrix) -> float:
    """Mean final score over the tasks trained on so far; TRACE calls it OP."""
    return fmean(R[R.num_stages, j] for j in _stages(R))


@_metric("1/T sum_{j<=T} R[j,j] (Riemer et al. 2019, arXiv 1810.11910)")
def learning_accuracy(R: ScoreMatrix) -> float:
    """Mean score of each task right after its own stage: how well it was learned at all."""
    return fmean(R[j, j] for j in _stages(R))


@_metric("1/T sum_{k<=T} average_accuracy after stage k (Rebuffi et al. 2017, arXiv 1611.07725)")
def average_incremental_accuracy(R: ScoreMatrix) -> float:
    """Mean over stages of the average accuracy so far; PyCIL's "average"."""
    return fmean(fmean(R[k, j] for j in range(1, k + 1)) for k in _stages(R))


@_metric("2/(T(T+1)) sum_{i>=j} R[i,j] (Diaz-Rodriguez et al. 2018, arXiv 1810.13166)")
def lower_triangle_accuracy(R: ScoreMatrix) -> float:
    """Mean of every score at or after the task's own stage."""
    return fmean(R[i, j] for i in _stages(R) for j in range(1, i + 1))


def _worst_later(R: ScoreMatrix) -> float:
    return fmean(min(R[t, j] for t in range(j + 1, R.num_stages + 1)) for j in _earlier(R))


@_metric(
    "1/(T-1) sum_{j<T} min_{j<t<=T} R[t,j], t over stage ends (De Lange et al. 2023, 2205.13452)"
)
def min_acc(R: ScoreMatrix) -> float:
    """Mean over earlier tasks of the worst score after learning; evaluated at stage ends only."""
    return _worst_later(R)


@_metric("1/T R[T,T] + (1 - 1/T) min_acc (De Lange et al. 2023, arXiv 2205.13452)")
def wc_acc(R: ScoreMatrix) -> float:
    """Worst-case accuracy: the newest task as learned, every earlier one at its worst."""
    T = R.num_stages
    return R[T, T] / T + (1 - 1 / T) * _worst_later(R)


# C.2 Transfer


@_metric("1/(T-1) sum_{j<T} (R[T,j] - R[j,j]); negative = forgot (Lopez-Paz & Ranzato 2017)")
def bwt_gem(R: ScoreMatrix) -> float:
    """Backward transfer, the default: final score minus the score when learned."""
    return fmean(R[R.num_stages, j] - R[j, j] for j in _earlier(R))


@_metric("1/T sum_{j<=T} (R[T,j] - R[j,j]) (TRACE, arXiv 2310.06762)")
def bwt_trace(R: ScoreMatrix) -> float:
    """Backward transfer divided by T: the last term is 0, so it is bwt_gem (T-1)/T."""
    _earlier(R)
    return fmean(R[R.num_stages, j] - R[j, j] for j in _stages(R))


def _later_change(R: ScoreMatrix) -> float:
    _earlier(R)
    return fmean(R[i, j] - R[j, j] for i in range(2, R.num_stages + 1) for j in range(1, i))


@_metric("2/(T(T-1)) sum_{i=2..T} sum_{j<i} (R[i,j] - R[j,j]) (Diaz-Rodriguez et al. 2018)")
def bwt_diaz(R: ScoreMatrix) -> float:
    """Backward transfer averaged over all later stages, not the last alone; CapyMOA's too."""
    return _later_change(R)


@_metric("1 - |min(bwt_diaz, 0)| (Diaz-Rodriguez et al. 2018)")
def rem(R: ScoreMatrix) -> float:
    """Remembering: 1 when later stages cost nothing on average."""
    return 1 - abs(min(_later_change(R), 0.0))


@_metric("max(bwt_diaz, 0) (Diaz-Rodriguez et al. 2018)")
def bwt_plus(R: ScoreMatrix) -> float:
    """Positive backward transfer: 0 when later stages did not help on average."""
    return max(_later_change(R), 0.0)


@_metric(
    "1/(T-1) sum_{j=2..T} (R[j-1,j] - R[0,j]), seed text on both sides (Lopez-Paz & Ranzato 2017)"
)
def fwt_gem(R: ScoreMatrix) -> float:
    """Forward transfer, the default: gain on a task before it is trained on, over the base."""
    return fmean(R[j, j + 1] - R[0, j + 1] for j in _earlier(R))


@_metric("2/(T(T-1)) sum_{1<=i<j} R[i,j] (Diaz-Rodriguez et al. 2018)")
def fwt_diaz(R: ScoreMatrix) -> float:
    """Mean score on tasks not yet trained on: a level, not a gain; it has no baseline."""
    return fmean(R[i, j] for i in _earlier(R) for j in range(i + 1, R.num_stages + 1))


# C.3 Forgetting


def forgetting_of(R: ScoreMatrix, j: int) -> float:
    """f_j of `forgetting_chaudhry`: best score in rows j..T-1 minus the final one; 1 <= j < T.

    Raises:
        Undefined: A cell it needs was not measured.
    """
    return max(R[i, j] for i in range(j, R.num_stages)) - R[R.num_stages, j]


@_metric(
    "1/(T-1) sum_{j<T} (max_{j<=l<T} R[l,j] - R[T,j]); positive = forgot "
    "(Chaudhry et al. 2018, arXiv 1801.10112, from the task's own stage on)"
)
def forgetting_chaudhry(R: ScoreMatrix) -> float:
    """Forgetting, the default. The last row is no part of the maximum, so it may be negative."""
    return fmean(forgetting_of(R, j) for j in _earlier(R))


@_metric("1/(T-1) sum_{j<T} (max_{1<=l<T} R[l,j] - R[T,j]) (Chaudhry et al. 2018, as written)")
def forgetting_chaudhry_any(R: ScoreMatrix) -> float:
    """As `forgetting_chaudhry`, but a stage before the task's own may hold the maximum."""
    T = R.num_stages
    return fmean(max(R[i, j] for i in range(1, T)) - R[T, j] for j in _earlier(R))


@_metric("1/(T-1) sum_{j<T} (max_{j<=l<=T} R[l,j] - R[T,j]) (as in mammoth and PyCIL)")
def forgetting_incl_final(R: ScoreMatrix) -> float:
    """As `forgetting_chaudhry` with the last row in the maximum; never negative."""
    T = R.num_stages
    return fmean(max(R[i, j] for i in range(j, T + 1)) - R[T, j] for j in _earlier(R))


@_metric("1/(T-1) sum_{j<T} (R[j,j] - R[T,j]) (as in avalanche)")
def forgetting_first_last(R: ScoreMatrix) -> float:
    """Score when learned minus final score: -bwt_gem."""
    return fmean(R[j, j] - R[R.num_stages, j] for j in _earlier(R))


@_metric("1/(T-1) sum_{j<T} (max_{j<=l<T} R[l,j] - R[T,j]) / max_{j<=l<T} R[l,j] (ours)")
def forgetting_relative(R: ScoreMatrix) -> float:
    """Forgetting as a share of the best score; undefined if a task never scored above 0."""
    shares = []
    for j in _earlier(R):
        best = max(R[i, j] for i in range(j, R.num_stages))
        if best == 0:
            raise Undefined(f"task {R.stages[j - 1]!r} never scored above 0, so no share of it")
        shares.append(forgetting_of(R, j) / best)
    return fmean(shares)


def retention_of(R: ScoreMatrix, j: int, noise_floor: float = 0.0) -> float:
    """Share of task j's learned gain that is kept at the end; above 1 if it grew later.

    Args:
        R: The score matrix.
        j: The task, by its stage, 1 <= j <= T.
        noise_floor: Gains up to this, in score units, count as none; >= 0.

    Raises:
        Undefined: The gain over the base is not above the noise floor, or a cell is missing.
    """
    gain = R[j, j] - R[0, j]
    if gain <= noise_floor:
        raise Undefined(
            f"task {R.stages[j - 1]!r} gained {gain:.3g} over the base, "
            f"not above the noise floor {noise_floor:.3g}: there is no gain to keep"
        )
    return (R[R.num_stages, j] - R[0, j]) / gain


@_metric("1/(T-1) sum_{j<T} (R[T,j] - R[0,j]) / (R[j,j] - R[0,j]) (ours)")
def retention_gain(R: ScoreMatrix, noise_floor: float | None = None) -> float:
    """Mean share of the learned gain kept: an LLM keeps its base score even when it forgets all.

    Args:
        R: The score matrix.
        noise_floor: Gains up to this, in score units, make it undefined; None means 0.
    """
    return fmean(retention_of(R, j, noise_floor or 0.0) for j in _earlier(R))


# C.4 Intransigence


def intransigence_of(R: ScoreMatrix, j: int, reference: Mapping[str, float]) -> float:
    """I_j: the reference score on task j minus the score when it was learned here.

    Args:
        R: The score matrix.
        j: The task, by its stage, 1 <= j <= T.
        reference: Score in [0, 1] of the reference model, by task name.

    Raises:
        Undefined: The reference lacks the task, or the cell is missing.
    """
    if R.stages[j - 1] not in reference:
        raise Undefined(f"not measured: no reference score for task {R.stages[j - 1]!r}")
    return reference[R.stages[j - 1]] - R[j, j]


@_metric(
    "1/T sum_{j<=T} (r_j - R[j,j]), r_j a reference model's score; positive = failed to learn "
    "(Chaudhry et al. 2018)"
)
def intransigence(R: ScoreMatrix, reference: Mapping[str, float] | None = None) -> float:
    """How much worse each task was learned than by a reference run; belongs beside bwt_gem.

    Args:
        R: The score matrix.
        reference: Score in [0, 1] by task name, jointly trained or trained on that task alone;
            None when there is no such run.
    """
    if reference is None:
        raise Undefined("not measured: needs a reference run (joint, or each task alone)")
    return fmean(intransigence_of(R, j, reference) for j in _stages(R))


def final_metrics(
    R: ScoreMatrix,
    *,
    noise_floor: float | None = None,
    reference: Mapping[str, float] | None = None,
) -> dict[str, Metric]:
    """Every metric of this module on one matrix, by name, in the order of the report.

    Args:
        R: The score matrix; `matrix.upto(k)` gives the metrics as they stood after stage k.
        noise_floor: As in `retention_gain`.
        reference: As in `intransigence`.
    """
    metrics = (
        average_accuracy(R),
        learning_accuracy(R),
        bwt_gem(R),
        fwt_gem(R),
        forgetting_chaudhry(R),
        intransigence(R, reference),
        retention_gain(R, noise_floor),
        average_incremental_accuracy(R),
        lower_triangle_accuracy(R),
        min_acc(R),
        wc_acc(R),
        bwt_trace(R),
        bwt_diaz(R),
        rem(R),
        bwt_plus(R),
        fwt_diaz(R),
        forgetting_chaudhry_any(R),
        forgetting_incl_final(R),
        forgetting_first_last(R),
        forgetting_relative(R),
    )
    return {metric.name: metric for metric in metrics}
