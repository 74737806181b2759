"""The sampled estimate of a divergence, and the fit of forgetting on divergences; in nats."""

import math
from collections.abc import Sequence

from fastslow.core.types import Metric


def k3(logprob_p: float, logprob_q: float) -> float:
    """Estimate of KL(p||q) from one token that p drew: e^d - 1 - d with d = ln q - ln p; >= 0.

    Unbiased where the supports match and p draws at temperature 1. For divergences that cannot be
    computed exactly.

    Source: Schulman 2020, "Approximating KL divergence".
    """
    d = logprob_q - logprob_p
    return math.expm1(d) - d


def forgetting_on_kl(
    divergences: Sequence[float], forgetting: Sequence[float]
) -> dict[str, Metric]:
    """Least-squares parabola of forgetting on KL, over stages, runs or checkpoints.

    forgetting = c0 + c1 KL + c2 KL^2. It describes these points and extrapolates to no other.

    `divergences` are in nats per token (the source fits `kl_razor` on the new task's inputs),
    `forgetting` of earlier tasks at the same points in score units.

    Gives `kl_fit_c0`, `kl_fit_c1`, `kl_fit_c2`, `kl_fit_r2` (in [0, 1]) and `kl_fit_n`. No value
    from fewer than four points, fewer than three different KL, or equal forgetting.

    Source: RL's Razor (arXiv 2509.04259), which reports R2 = 0.71 for language models.
    """
    n = len(divergences)
    formula = f"forgetting = c0 + c1 KL + c2 KL^2, least squares on n = {n} (arXiv 2509.04259)"
    reason = _why_no_fit(divergences, forgetting)
    fitted = (None,) * 4 if reason else _parabola(divergences, forgetting)
    names = ("kl_fit_c0", "kl_fit_c1", "kl_fit_c2", "kl_fit_r2")
    fit = {name: Metric(name, x, reason, formula) for name, x in zip(names, fitted, strict=True)}
    return fit | {"kl_fit_n": Metric("kl_fit_n", float(n), None, "points of the fit")}


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
    residual = float(((target - powers @ solved) ** 2).sum())
    variation = float(((target - target.mean()) ** 2).sum())
    r2 = min(1.0, max(0.0, 1 - residual / variation))
    return float(solved[0]), float(solved[1] / scale), float(solved[2] / scale**2), r2
