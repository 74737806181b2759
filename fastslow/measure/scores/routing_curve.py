"""What sending the hardest problems to a better and dearer arm would gain, by a signal's order.

Functions of numbers: the scores of both arms on the same problems, and signals read under the cheap
one. Nothing is sent anywhere.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from jaxtyping import Float

from fastslow.core.seeds import named_random
from fastslow.core.types import Metric
from fastslow.measure.scores.signal_draws import DRAWS
from fastslow.measure.stats.bootstrap import Estimate, draw_again, from_draws
from fastslow.measure.stats.rank_figures import centred_ranks

LEAST_GAIN = 0.05
"""Mean by which the strong arm must be better for a pair to be eligible."""
MOST_WORSE = 0.10
"""Share of the problems on which it may be worse. Source: both ours; where it is worse on more, to
route is to guess the label."""
FORMULA = (
    "(area under accuracy by number routed - under the chord) / (that of the best order - under "
    "the chord)"
)


@dataclass(frozen=True, slots=True)
class Arm:
    """One of two ways to answer the same problems."""

    name: str
    scores: tuple[float, ...]
    """In [0, 1], one a problem, in the same order for both arms."""
    prompt_tokens: float
    """Mean over the problems."""


@dataclass(frozen=True, slots=True)
class RoutingCurve:
    """What routing between two arms would give, by each signal."""

    task: str
    cheap: Arm
    strong: Arm
    eligible: bool
    """Whether the strong arm is better by `LEAST_GAIN`, and worse on at most `MOST_WORSE`."""
    worse_frac: float
    """Share of the problems on which the strong arm is worse."""
    gains: Mapping[str, Estimate]
    """`routing_gain` by signal: 1 is the best order, 0 chance, negative worse than that."""
    accuracy: Mapping[str, tuple[float, ...]]
    """By signal, and by `best order`: the mean score when the k hardest go to the strong arm, for
    every k from 0; ties are in random order, and this is the mean over those."""

    @property
    def tokens(self) -> tuple[float, ...]:
        """Mean prompt tokens for every k from 0: what the points of `accuracy` cost.

        The signal is read under the cheap arm, so what is sent on goes through the model twice.
        """
        size = len(self.cheap.scores)
        cheap, strong = self.cheap.prompt_tokens, self.strong.prompt_tokens
        return tuple(cheap + strong * k / size for k in range(size + 1))


def routing_curve(
    task: str,
    cheap: Arm,
    strong: Arm,
    signals: Mapping[str, Sequence[float | None]],
    clusters: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> RoutingCurve:
    """Route every problem by every signal, with bootstrap intervals over examples or clusters.

    `signals` have a value for each problem; one with None has no gain.
    """
    differences = np.array(strong.scores) - np.array(cheap.scores)  # [n]
    usable = {name: values for name, values in signals.items() if None not in values}
    values = np.array([*usable.values(), differences], dtype=float)  # [S + 1, n]
    size, stream = len(differences), named_random(seed, "routing", task, cheap.name, strong.name)
    draws = [np.array(draw_again(stream, size, clusters)) for _ in range(DRAWS)]
    again = np.array([_gains(values[:, d], differences[d]) for d in draws])  # [draws, S + 1]
    gains = {name: _estimate(None, again[:, 0]) for name in signals}
    for name, gain, redrawn in zip(usable, _gains(values, differences), again.T, strict=False):
        gains[name] = _estimate(float(gain), redrawn)
    worse = float(np.mean(differences < 0))
    base = fmean(cheap.scores)
    names = [*usable, "best order"]
    curves = {n: base + _added(v, differences) for n, v in zip(names, values, strict=True)}
    return RoutingCurve(
        task,
        cheap,
        strong,
        eligible=float(differences.mean()) >= LEAST_GAIN and worse <= MOST_WORSE,
        worse_frac=worse,
        gains=gains,
        accuracy={name: tuple(curve.tolist()) for name, curve in curves.items()},
    )


def _gains(
    values: Float[np.ndarray, "S n"], differences: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " S"]:
    """`routing_gain` of each row of values, the last of which gives the best order; may be NaN.

    A problem of descending rank r adds its difference to the accuracy at k = r, r + 1, ..., n. So
    the area above the chord is the sum of differences times centred ascending ranks, over n, and
    with the mean rank of ties it is the mean over their orders.
    """
    areas = centred_ranks(values) @ (differences - differences.mean())
    if areas[-1] <= 1e-12:
        return np.full(len(values), np.nan)
    gains: Float[np.ndarray, " S"] = areas / areas[-1]
    return gains


def _added(
    signal: Float[np.ndarray, " n"], differences: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " points"]:
    """What the mean score gains when the k hardest go to the strong arm, k = 0 to n."""
    _, group, sizes = np.unique(-signal, return_inverse=True, return_counts=True)
    means = np.bincount(group, weights=differences) / sizes  # of each group of ties
    steps = np.repeat(means, sizes)  # hardest group first
    added: Float[np.ndarray, " points"] = np.append(0.0, np.cumsum(steps)) / len(signal)
    return added


def _estimate(gain: float | None, draws: Float[np.ndarray, " draws"]) -> Estimate:
    """A gain with its interval, or why there is none."""
    reason = None
    if gain is None:
        reason = "it is not defined on every problem"
    elif np.isnan(gain):
        gain, reason = None, "the arms differ by the same on every problem: no order is better"
    metric = Metric("routing_gain", gain, reason, FORMULA)
    if reason is not None:
        return Estimate(metric, None, reason)
    return from_draws(metric, draws[np.isfinite(draws)].tolist(), DRAWS)
