"""Divergences between two distributions, exact and sampled, and the fit of forgetting on them.

Pure functions on numbers, in nats. A divergence has a direction: KL(p||q) is at tokens p draws.
What is measured on a model is in `drift.py`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from fastslow.core.types import Metric
from fastslow.measure.stats.figure import Undefined, figure


def kl(p: Sequence[float], q: Sequence[float]) -> float:
    """KL(p||q) = sum p ln(p/q) of two categorical distributions, >= 0 up to rounding.

    Infinite where q is 0 and p is not.

    Args:
        p: Probabilities that sum to 1.
        q: As many.
    """
    total = 0.0
    for a, b in zip(p, q, strict=True):
        if a > 0:
            total += math.inf if b == 0 else a * math.log(a / b)
    return total


@dataclass(frozen=True, slots=True)
class SampledKl:
    """Estimates of KL(p||q) from tokens that p drew, means over the tokens."""

    k1: float
    """-d with d = ln q - ln p: unbiased, may be negative."""
    k2: float
    """d^2/2: biased, low variance."""
    k3: float
    """e^d - 1 - d: unbiased where the supports match, >= 0; ours where the exact one is not."""


def sampled_kl(logprobs_p: Sequence[float], logprobs_q: Sequence[float]) -> SampledKl:
    """The three estimators of KL(p||q).

    Args:
        logprobs_p: ln p of each token that p drew at temperature 1; at least one.
        logprobs_q: ln q of the same tokens.

    Source: Schulman 2020, "Approximating KL divergence".
    """
    d = [b - a for a, b in zip(logprobs_p, logprobs_q, strict=True)]
    return SampledKl(
        k1=-fmean(d),
        k2=fmean(x * x / 2 for x in d),
        k3=fmean(math.expm1(x) - x for x in d),
    )


def forgetting_on_kl(
    divergences: Sequence[float], forgetting: Sequence[float]
) -> dict[str, Metric]:
    """Least-squares parabola of forgetting on KL, over stages, runs or checkpoints.

    forgetting = c0 + c1 KL + c2 KL^2. It describes these points and extrapolates to no other.

    Args:
        divergences: KL of each point in nats per token: `kl_razor` on the new task's inputs is what
            the source fits.
        forgetting: Forgetting of earlier tasks at the same points, in score units.

    Returns:
        `kl_fit_c0`, `kl_fit_c1`, `kl_fit_c2`, `kl_fit_r2` (in [0, 1]) and `kl_fit_n`. None where
        there are fewer than four points, fewer than three different KL, or equal forgetting.

    Source: RL's Razor (arXiv 2509.04259), which reports R2 = 0.71 for language models.
    """
    n = len(divergences)
    formula = f"forgetting = c0 + c1 KL + c2 KL^2, least squares on n = {n} (arXiv 2509.04259)"
    reason = _why_no_fit(divergences, forgetting)
    fitted = None if reason else _parabola(divergences, forgetting)

    def of(index: int) -> Callable[[], float]:
        def value() -> float:
            if fitted is None:
                raise Undefined(reason or "")
            return fitted[index]

        return value

    names = ("kl_fit_c0", "kl_fit_c1", "kl_fit_c2", "kl_fit_r2")
    made = [figure(name, formula, of(i)) for i, name in enumerate(names)]
    made.append(Metric("kl_fit_n", float(n), None, "points of the fit"))
    return {metric.name: metric for metric in made}


def _why_no_fit(x: Sequence[float], y: Sequence[float]) -> str | None:
    if len(x) != len(y):
        raise ValueError(f"forgetting_on_kl: {len(x)} divergences for {len(y)} values. Pair them.")
    if len(x) < 4:
        return f"a parabola goes through any three points; needs four, got {len(x)}"
    if len(set(x)) < 3:
        return f"needs three different KL values, got {len(set(x))}"
    if len(set(y)) == 1:
        return "every point has the same forgetting: nothing to explain"
    return None


def _parabola(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float, float]:
    """c0, c1, c2 and R2; x is scaled to its largest value first, so that the system is solvable."""
    import numpy as np

    scale = max(map(abs, x))
    powers = np.vander(np.asarray(x, dtype=float) / scale, 3, increasing=True)
    target = np.asarray(y, dtype=float)
    solved, *_ = np.linalg.lstsq(powers, target, rcond=None)
    left = float(((target - powers @ solved) ** 2).sum())
    whole = float(((target - target.mean()) ** 2).sum())
    r2 = min(1.0, max(0.0, 1 - left / whole))
    return float(solved[0]), float(solved[1] / scale), float(solved[2] / scale**2), r2
