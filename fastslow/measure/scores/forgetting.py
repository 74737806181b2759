"""Forgetting: the loss of each task between its own stage and the end, in every published variant.

Letters as in `matrix.py`. Functions that end in `_of` give one task's value, which is task j of the
mean that has their name.
"""

from statistics import fmean

from fastslow.measure.scores.matrix import ScoreMatrix, earlier_tasks, metric
from fastslow.measure.stats.figure import Undefined


def forgetting_of(R: ScoreMatrix, j: int) -> float:
    """f_j of `forgetting_chaudhry`: best score in rows j..T-1 minus the final one; 1 <= j < T.

    Raises:
        Undefined: A cell it needs was not measured.
    """
    return max(R[i, j] for i in range(j, R.num_stages)) - R[R.num_stages, j]


@metric(
    "1/(T-1) sum_{j<T} (max_{j<=l<T} R[l,j] - R[T,j]); positive = forgot "
    "(Chaudhry et al. 2018, arXiv 1801.10112, from the task's own stage on)"
)
def forgetting_chaudhry(R: ScoreMatrix) -> float:
    """Forgetting, the default. The last row is not part of the maximum, so it may be negative."""
    return fmean(forgetting_of(R, j) for j in earlier_tasks(R))


def forgetting_any_of(R: ScoreMatrix, j: int) -> float:
    """Task j's part of `forgetting_chaudhry_any`: best score in rows 1..T-1 minus the final one.

    Raises:
        Undefined: A cell it needs was not measured.
    """
    return max(R[i, j] for i in range(1, R.num_stages)) - R[R.num_stages, j]


@metric("1/(T-1) sum_{j<T} (max_{1<=l<T} R[l,j] - R[T,j]) (Chaudhry et al. 2018, as written)")
def forgetting_chaudhry_any(R: ScoreMatrix) -> float:
    """As `forgetting_chaudhry`, but a stage before the task's own may hold the maximum."""
    return fmean(forgetting_any_of(R, j) for j in earlier_tasks(R))


@metric("1/(T-1) sum_{j<T} (max_{j<=l<=T} R[l,j] - R[T,j]) (as in mammoth and PyCIL)")
def forgetting_incl_final(R: ScoreMatrix) -> float:
    """As `forgetting_chaudhry` with the last row in the maximum; never negative."""
    T = R.num_stages
    return fmean(max(R[i, j] for i in range(j, T + 1)) - R[T, j] for j in earlier_tasks(R))


@metric("1/(T-1) sum_{j<T} (R[j,j] - R[T,j]) (as in avalanche)")
def forgetting_first_last(R: ScoreMatrix) -> float:
    """Score when learned minus final score: -bwt_gem."""
    return fmean(R[j, j] - R[R.num_stages, j] for j in earlier_tasks(R))


def forgetting_relative_of(R: ScoreMatrix, j: int) -> float:
    """Task j's forgetting as a share of its best score in rows j..T-1; at most 1.

    Raises:
        Undefined: That best score is 0, or a cell it needs was not measured.
    """
    best = max(R[i, j] for i in range(j, R.num_stages))
    if best == 0:
        raise Undefined(f"task {R.stages[j - 1]!r} never scored above 0, so no share of it")
    return forgetting_of(R, j) / best


@metric("1/(T-1) sum_{j<T} (max_{j<=l<T} R[l,j] - R[T,j]) / max_{j<=l<T} R[l,j] (ours)")
def forgetting_relative(R: ScoreMatrix) -> float:
    """Forgetting as a share of the best score; undefined if a task never scored above 0."""
    return fmean(forgetting_relative_of(R, j) for j in earlier_tasks(R))


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


@metric("1/(T-1) sum_{j<T} (R[T,j] - R[0,j]) / (R[j,j] - R[0,j]) (ours)")
def retention_gain(R: ScoreMatrix, noise_floor: float | None = None) -> float:
    """Mean share of the learned gain kept: an LLM keeps its base score even when it forgets all.

    Args:
        R: The score matrix.
        noise_floor: Gains up to this, in score units, make it undefined; None means 0.
    """
    return fmean(retention_of(R, j, noise_floor or 0.0) for j in earlier_tasks(R))
