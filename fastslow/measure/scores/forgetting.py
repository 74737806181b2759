"""Forgetting: the loss of each task between its own stage and the end, in every published variant.

Letters as in `matrix.py`. Each function is the term of task j, whose mean over tasks is the metric.
"""

from fastslow.measure.scores.matrix import ScoreMatrix, earlier_tasks, mean_over
from fastslow.measure.stats.figure import Undefined


@mean_over(
    earlier_tasks,
    "1/(T-1) sum_{j<T} (max_{j<=l<T} R[l,j] - R[T,j]); positive = forgot "
    "(Chaudhry et al. 2018, arXiv 1801.10112, from the task's own stage on)",
)
def forgetting_chaudhry(R: ScoreMatrix, j: int) -> float:
    """Forgetting, the default. The last row is not part of the maximum, so it may be negative."""
    return _best(R, j) - R[R.num_stages, j]


@mean_over(
    earlier_tasks,
    "1/(T-1) sum_{j<T} (max_{1<=l<T} R[l,j] - R[T,j]) (Chaudhry et al. 2018, as written)",
)
def forgetting_chaudhry_any(R: ScoreMatrix, j: int) -> float:
    """As `forgetting_chaudhry`, but a stage before the task's own may hold the maximum."""
    return max(R[i, j] for i in range(1, R.num_stages)) - R[R.num_stages, j]


@mean_over(
    earlier_tasks, "1/(T-1) sum_{j<T} (max_{j<=l<=T} R[l,j] - R[T,j]) (as in mammoth and PyCIL)"
)
def forgetting_incl_final(R: ScoreMatrix, j: int) -> float:
    """As `forgetting_chaudhry` with the last row in the maximum; never negative."""
    return max(0.0, forgetting_chaudhry.term(R, j))


@mean_over(earlier_tasks, "1/(T-1) sum_{j<T} (R[j,j] - R[T,j]) (as in avalanche)")
def forgetting_first_last(R: ScoreMatrix, j: int) -> float:
    """Score when learned minus final score: -bwt_gem."""
    return R[j, j] - R[R.num_stages, j]


@mean_over(
    earlier_tasks, "1/(T-1) sum_{j<T} (max_{j<=l<T} R[l,j] - R[T,j]) / max_{j<=l<T} R[l,j] (ours)"
)
def forgetting_relative(R: ScoreMatrix, j: int) -> float:
    """Forgetting as a share of the best score; undefined if a task never scored above 0."""
    best = _best(R, j)
    if best == 0:
        raise Undefined(f"task {R.stages[j - 1]!r} never scored above 0, so no share of it")
    return forgetting_chaudhry.term(R, j) / best


def _best(R: ScoreMatrix, j: int) -> float:
    """Task j's best score in rows j..T-1."""
    return max(R[i, j] for i in range(j, R.num_stages))


@mean_over(earlier_tasks, "1/(T-1) sum_{j<T} (R[T,j] - R[0,j]) / (R[j,j] - R[0,j]) (ours)")
def retention_gain(R: ScoreMatrix, j: int, noise_floor: float | None = None) -> float:
    """Share of the learned gain kept: an LLM keeps its base score even when it forgets all.

    Above 1 if the score grew later; undefined for gains up to `noise_floor`, in score units.
    """
    gain, floor = R[j, j] - R[0, j], noise_floor or 0.0
    if gain <= floor:
        raise Undefined(
            f"task {R.stages[j - 1]!r} gained {gain:.3g} over the base, "
            f"not above the noise floor {floor:.3g}: there is no gain to keep"
        )
    return (R[R.num_stages, j] - R[0, j]) / gain
