"""Accuracy: the level a run reaches, averaged in the ways the field averages it.

Letters as in `matrix.py`.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from fastslow.core.types import Metric
from fastslow.measure.scores.matrix import (
    ScoreMatrix,
    earlier_tasks,
    every_stage,
    mean_over,
    metric,
)
from fastslow.measure.stats.figure import Undefined, figure


@mean_over(every_stage, "1/T sum_{j<=T} R[T,j] (Lopez-Paz & Ranzato 2017, arXiv 1706.08840)")
def average_accuracy(R: ScoreMatrix, j: int) -> float:
    """Mean final score over the tasks trained on so far; TRACE calls it OP."""
    return R[R.num_stages, j]


@mean_over(every_stage, "1/T sum_{j<=T} R[j,j] (Riemer et al. 2019, arXiv 1810.11910)")
def learning_accuracy(R: ScoreMatrix, j: int) -> float:
    """Mean score of each task right after its own stage: how well it was learned at all."""
    return R[j, j]


@metric("1/T sum_{k<=T} average_accuracy after stage k (Rebuffi et al. 2017, arXiv 1611.07725)")
def average_incremental_accuracy(R: ScoreMatrix) -> float:
    """Mean over stages of the average accuracy so far; PyCIL's "average"."""
    return fmean([fmean([R[k, j] for j in range(1, k + 1)]) for k in every_stage(R)])


@metric("2/(T(T+1)) sum_{i>=j} R[i,j] (Diaz-Rodriguez et al. 2018, arXiv 1810.13166)")
def lower_triangle_accuracy(R: ScoreMatrix) -> float:
    """Mean of every score at or after the task's own stage."""
    return fmean([R[i, j] for i in every_stage(R) for j in range(1, i + 1)])


@mean_over(
    earlier_tasks,
    "1/(T-1) sum_{j<T} min_{j<t<=T} R[t,j], t over stage ends (De Lange et al. 2023, 2205.13452)",
)
def min_acc(R: ScoreMatrix, j: int) -> float:
    """Mean over earlier tasks of the worst score after learning; evaluated at stage ends only."""
    return min(R[t, j] for t in range(j + 1, R.num_stages + 1))


@metric("1/T R[T,T] + (1 - 1/T) min_acc (De Lange et al. 2023, arXiv 2205.13452)")
def wc_acc(R: ScoreMatrix) -> float:
    """Worst-case accuracy: the newest task as learned, every earlier one at its worst."""
    T = R.num_stages
    return R[T, T] / T + (1 - 1 / T) * fmean(min_acc.term(R, j) for j in earlier_tasks(R))


def lca(curves: Mapping[str, Sequence[float]], updates: int) -> Metric:
    """Learning curve area LCA_b in [0, 1]: how fast tasks are learned in b = `updates` updates.

    `curves` has by task its test score in [0, 1] before the first update of its own stage and
    after each update from there on; LCA_0 is the zero-shot score.
    """

    def value() -> float:
        if not curves:
            raise Undefined("not measured: no learning curve")
        for task, curve in curves.items():
            if len(curve) <= updates:
                raise Undefined(
                    f"not measured: task {task!r} was scored {len(curve)} times, "
                    f"LCA_{updates} needs {updates + 1}"
                )
        return fmean(fmean(curve[: updates + 1]) for curve in curves.values())

    formula = (
        f"1/(b+1) sum_{{b'<=b}} (mean over tasks of the score after b' updates), b = {updates} "
        "(Chaudhry et al. 2019, arXiv 1812.00420)"
    )
    return figure("lca", formula, value)
