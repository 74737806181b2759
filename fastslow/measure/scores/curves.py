"""Learning curves within a stage: how fast a score is reached, and where it seems to be heading."""

import random
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from fastslow.core.errors import EvaluationError
from fastslow.core.types import Metric
from fastslow.measure.stats.bootstrap import Estimate, draw_again, percentile_interval
from fastslow.measure.stats.figure import Undefined, figure

SIGMOID = "R0 + (A - R0) / (1 + (C_mid/C)^B) (Fast-Slow Training, arXiv 2605.12484)"
PARAMETERS = ("sigmoid_start", "sigmoid_asymptote", "sigmoid_midpoint", "sigmoid_steepness")
"""R0 and A in score units, C_mid in the curve's unit, B without unit."""
RESAMPLES = 200


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Scores of the same examples at several points of training; `EvaluationError` if unfit."""

    unit: Literal["steps", "rollouts"]
    """Unit of `counts`: optimizer steps, or completions drawn for training."""
    counts: tuple[int, ...]
    """Rising counts, >= 0."""
    scores: tuple[tuple[float, ...], ...]
    """One row per point, in [0, 1]: the score of each example, in one order throughout. A curve
    known by its means alone has one column, and then no interval."""
    clusters: tuple[Hashable, ...] | None = None
    """The cluster of each example; None takes each as its own."""

    def __post_init__(self) -> None:
        if list(self.counts) != sorted(set(self.counts)) or min(self.counts, default=0) < 0:
            raise EvaluationError(
                f"learning curve: counts must be >= 0 and rise, got {list(self.counts)}. "
                "Give each point once, in order."
            )
        widths = {len(row) for row in self.scores}
        if len(self.scores) != len(self.counts) or len(widths) > 1 or 0 in widths:
            raise EvaluationError(
                f"learning curve: {len(self.counts)} counts need as many rows of scores of the "
                f"same examples, got {len(self.scores)} rows of {sorted(widths)} scores."
            )

    @property
    def shape(self) -> tuple[str, tuple[int, ...], int]:
        """What two curves must share to be compared: unit, counts, number of examples."""
        return self.unit, self.counts, self.num_examples

    @property
    def num_examples(self) -> int:
        """Examples behind every point."""
        return len(self.scores[0]) if self.scores else 0

    def means(self, examples: Sequence[int] | None = None) -> list[float]:
        """Mean score at each point, over the examples of these indices; None takes each once."""
        if examples is None:
            return [fmean(row) for row in self.scores]
        return [fmean(row[i] for i in examples) for row in self.scores]


def count_to_threshold(curve: LearningCurve, threshold: float) -> Metric:
    """Steps or rollouts until the mean score first is at `threshold` or above it.

    The first point measured counts, nothing is interpolated: the truth may be up to one interval
    between points earlier. The name says the unit: `steps_to_threshold`, `rollouts_to_threshold`.
    """

    def value() -> float:
        for count, mean in zip(curve.counts, curve.means(), strict=True):
            if mean >= threshold:
                return float(count)
        if not curve.counts:
            raise Undefined("not measured: the curve has no point")
        raise Undefined(f"{threshold:g} was not reached in {curve.counts[-1]} {curve.unit}")

    formula = f"first count of {curve.unit} with a mean score >= {threshold:g} (ours)"
    return figure(f"{curve.unit}_to_threshold", formula, value)


def fit_sigmoid(
    curve: LearningCurve, generator: random.Random, resamples: int = RESAMPLES
) -> dict[str, Estimate]:
    """Least-squares fit of the four-parameter sigmoid, with bootstrap intervals over examples.

    R0 and A are held in [0, 1], C_mid between a tenth of the first and ten times the last count,
    B in [0.1, 20]. Needs at least five points whose means differ. Bootstrap with `resamples` draws
    of the examples, >= 40; 0 leaves the intervals out. Gives `PARAMETERS` and `sigmoid_r2` by name.
    """
    reason = None
    if len(curve.counts) < 5:
        reason = f"four parameters need at least five points, the curve has {len(curve.counts)}"
    elif len(set(curve.means())) == 1:
        reason = "every point has the same score: there is no curve to fit"
    fitted = None if reason else _least_squares(curve.counts, curve.means())
    draws: list[tuple[float, ...]] = []
    if fitted is not None and curve.num_examples > 1:
        for _ in range(resamples):
            indices = draw_again(generator, curve.num_examples, curve.clusters)
            draws.append(_least_squares(curve.counts, curve.means(indices), fitted[:4]))
    why_none = reason or (
        "one example has no spread" if curve.num_examples < 2 else "no bootstrap was asked for"
    )
    estimates = {}
    for index, name in enumerate((*PARAMETERS, "sigmoid_r2")):
        metric = Metric(name, fitted[index] if fitted else None, reason, SIGMOID)
        interval = percentile_interval([draw[index] for draw in draws]) if draws else None
        estimates[name] = Estimate(metric, interval, None if interval else why_none)
    return estimates


def _least_squares(
    counts: Sequence[int], means: Sequence[float], start: tuple[float, ...] | None = None
) -> tuple[float, ...]:
    """R0, A, C_mid, B and R2; from `start`, or the best from a few."""
    import numpy as np
    from scipy.optimize import least_squares
    from scipy.special import expit

    x, y = np.asarray(counts, dtype=float), np.asarray(means, dtype=float)
    positive = x[x > 0]
    logs = np.log(np.where(x > 0, x, 1.0))
    low = np.array([0.0, 0.0, np.log(positive[0] / 10), np.log(0.1)])
    high = np.array([1.0, 1.0, np.log(positive[-1] * 10), np.log(20.0)])

    def residuals(p: np.ndarray) -> np.ndarray:
        rise = np.where(x > 0, expit(np.exp(p[3]) * (logs - p[2])), 0.0)
        return np.asarray(p[0] + (p[1] - p[0]) * rise - y)

    if start is not None:
        starts = [[start[0], start[1], np.log(start[2]), np.log(start[3])]]
    else:
        middles = np.quantile(np.log(positive), [0.25, 0.5, 0.9])
        starts = [[y[0], y[-1], m, np.log(b)] for m in middles for b in (1.0, 4.0)]
    margin = 1e-6 * (high - low)
    fits = [
        least_squares(residuals, np.clip(s, low + margin, high - margin), bounds=(low, high))
        for s in starts
    ]
    best = min(fits, key=lambda fit: fit.cost)
    spread = float(((y - y.mean()) ** 2).sum())
    r2 = 1 - 2 * float(best.cost) / spread if spread else 0.0
    first, last, middle, steepness = best.x
    return float(first), float(last), float(np.exp(middle)), float(np.exp(steepness)), r2
