"""Intransigence: how far a run failed to learn, without which forgetting cannot be read.

Letters as in `matrix.py`. r_j is the score on task j of a reference run: one model trained on all
tasks together (`joint`), or one trained on task j alone with the same budget (`isolated`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from fastslow.core.types import Metric
from fastslow.measure.scores.matrix import ScoreMatrix, every_stage, mean_over
from fastslow.measure.stats.figure import Undefined


@dataclass(frozen=True, slots=True)
class Reference:
    """The scores of another run on the same tasks."""

    kind: Literal["joint", "isolated"]
    """Trained on all tasks so far together, or on each task alone from the base."""
    scores: Mapping[str, float]
    """Its test score in [0, 1], by task name."""


@mean_over(
    every_stage,
    "1/T sum_{j<=T} (r_j - R[j,j]), r_j a reference model's score; positive = failed to learn "
    "(Chaudhry et al. 2018)",
)
def intransigence(R: ScoreMatrix, j: int, reference: Reference | None = None) -> float:
    """How much worse each task was learned than by a reference run; read it with `bwt_gem`.

    Positive = failed to learn; in [-1, 1]. Values that rise with j are a cheap sign of lost
    plasticity.
    """
    if reference is None:
        raise Undefined("not measured: needs a reference run (joint, or each task alone)")
    task = R.stages[j - 1]
    if task not in reference.scores:
        raise Undefined(f"not measured: no reference score for task {task!r}")
    return reference.scores[task] - R[j, j]


def named_intransigence(R: ScoreMatrix, reference: Reference | None) -> Metric:
    """`intransigence`; its formula ends with the reference: `ref=joint` or `ref=isolated`."""
    mean = intransigence(R, reference)
    label = "" if reference is None else f"; ref={reference.kind}"
    return replace(mean, formula=mean.formula + label)


@mean_over(
    every_stage,
    "1/T sum_{j<=T} (R[j,j] - r_j), r_j trained on task j alone from the base with the same "
    "budget (as in SAPT)",
)
def fwt_isolated(R: ScoreMatrix, j: int, reference: Reference | None = None) -> float:
    """Gain from having learned other tasks before: minus `intransigence` with `ref=isolated`."""
    if reference is None or reference.kind != "isolated":
        raise Undefined("not measured: needs each task trained alone from the base")
    return -intransigence.term(R, j, reference)


@mean_over(every_stage, "1/T sum_{j<=T} (R[j,j] - R[0,j]) (ours)")
def learning_gain(R: ScoreMatrix, j: int) -> float:
    """Mean gain over the base at learning, in [-1, 1]: what there was to forget."""
    return R[j, j] - R[0, j]


def why_bwt_says_nothing(R: ScoreMatrix, noise_floor: float = 0.0) -> str | None:
    """Why backward transfer of this run must not be read as retention; None if it may be.

    `noise_floor` is the difference that repeated base runs show, in score units, >= 0.
    """
    gain = learning_gain(R)
    if gain.value is None:
        return gain.reason
    if gain.value <= noise_floor:
        return (
            f"BWT is not informative: the tasks gained {gain.value:.3g} on average when they were "
            f"learned, not above the noise floor {noise_floor:.3g}"
        )
    return None
