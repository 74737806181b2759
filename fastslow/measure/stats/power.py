"""How likely a design finds an effect of a given size: power, by simulation.

The experiment is repeated many times with the spread that was observed, each source of variance
estimated anew with its own degrees of freedom, and the intervals that find the effect are counted.
"""

from collections.abc import Mapping
from typing import TypeAlias

from fastslow.core.seeds import derive_seed

DRAWS = 2000
"""Experiments simulated: a rate is known within 0.02. Source: ours, some milliseconds."""
Sources: TypeAlias = Mapping[str, tuple[float, float]]
"""Source of variance to the squared standard error it gives a mean, with degrees of freedom."""


def power(sources: Sources, effect: float) -> float | None:
    """Share of repeated experiments whose 95 % interval lies on the side of 0 that `effect` is on.

    `effect` is the true mean, in the unit of the standard errors. Intervals are Student's t with
    Satterthwaite's degrees of freedom, as in `over_seeds`. In [0, 1]; None without any spread,
    which would make every effect certain.
    """
    import numpy as np
    from scipy.special import stdtrit

    spreads = [(square, df) for square, df in sources.values() if square > 0]
    if not spreads:
        return None
    generator = np.random.default_rng(derive_seed(0, "power"))
    squares, dfs = (np.array(column)[:, None] for column in zip(*spreads, strict=True))
    means = abs(effect) + np.sqrt(squares.sum()) * generator.standard_normal(DRAWS)
    # [sources, draws]: each squared standard error as an experiment would estimate it
    estimates = squares * generator.chisquare(dfs, (len(dfs), DRAWS)) / dfs
    total = estimates.sum(axis=0)
    df = total**2 / (estimates**2 / dfs).sum(axis=0)
    return round(float((means > stdtrit(df, 0.975) * np.sqrt(total)).mean()), 2)
