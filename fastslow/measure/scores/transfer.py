"""Transfer: the effect of learning one task on the scores of the tasks before and after it.

Letters as in `matrix.py`. Read backward transfer together with `intransigence.py`: a run that
learns nothing has nothing to forget.
"""

from statistics import fmean

from fastslow.measure.scores.matrix import (
    ScoreMatrix,
    earlier_tasks,
    every_stage,
    mean_over,
    metric,
)


@mean_over(
    earlier_tasks,
    "1/(T-1) sum_{j<T} (R[T,j] - R[j,j]); negative = forgot (Lopez-Paz & Ranzato 2017)",
)
def bwt_gem(R: ScoreMatrix, j: int) -> float:
    """Backward transfer, the default: final score minus the score when learned."""
    return R[R.num_stages, j] - R[j, j]


@metric("1/T sum_{j<=T} (R[T,j] - R[j,j]) (TRACE, arXiv 2310.06762)")
def bwt_trace(R: ScoreMatrix) -> float:
    """Backward transfer divided by T: the last term is 0, so it is bwt_gem (T-1)/T."""
    earlier_tasks(R)
    return fmean([R[R.num_stages, j] - R[j, j] for j in every_stage(R)])


def _later_change(R: ScoreMatrix) -> float:
    earlier_tasks(R)
    return fmean([R[i, j] - R[j, j] for i in range(2, R.num_stages + 1) for j in range(1, i)])


@metric("2/(T(T-1)) sum_{i=2..T} sum_{j<i} (R[i,j] - R[j,j]) (Diaz-Rodriguez et al. 2018)")
def bwt_diaz(R: ScoreMatrix) -> float:
    """Backward transfer averaged over all later stages, not the last alone; CapyMOA's too."""
    return _later_change(R)


@metric("1 - |min(bwt_diaz, 0)| (Diaz-Rodriguez et al. 2018)")
def rem(R: ScoreMatrix) -> float:
    """Remembering: 1 when later stages cost nothing on average."""
    return 1 - abs(min(_later_change(R), 0.0))


@metric("max(bwt_diaz, 0) (Diaz-Rodriguez et al. 2018)")
def bwt_plus(R: ScoreMatrix) -> float:
    """Positive backward transfer: 0 when later stages did not help on average."""
    return max(_later_change(R), 0.0)


@metric(
    "1/(T-1) sum_{j=2..T} (R[j-1,j] - R[0,j]), seed text on both sides (Lopez-Paz & Ranzato 2017)"
)
def fwt_gem(R: ScoreMatrix) -> float:
    """Forward transfer, the default: gain on a task before it is trained on, over the base."""
    return fmean(R[j, j + 1] - R[0, j + 1] for j in earlier_tasks(R))


@metric("2/(T(T-1)) sum_{1<=i<j} R[i,j] (Diaz-Rodriguez et al. 2018)")
def fwt_diaz(R: ScoreMatrix) -> float:
    """Mean score on tasks not yet trained on: a level, not a gain; it has no baseline."""
    return fmean([R[i, j] for i in earlier_tasks(R) for j in range(i + 1, R.num_stages + 1)])
