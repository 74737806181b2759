"""Plasticity: can the weights of a stage still learn something new as well as the base can?

The fresh-run probe trains on a task that no stage visits, from the weights of stage i and from the
base: same data, steps, optimizer, seeds and seed text, new optimizer state. V(s) is the mean
validation score at step s. Two figures matter: a high start without a gain is retention or
transfer, not plasticity. This module only reads the curves.

Source: the probe of Fast-Slow Training (arXiv 2605.12484); area and gain ratio are ours.
"""

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from statistics import fmean
from typing import Literal

from fastslow.core.errors import EvaluationError
from fastslow.core.types import Metric
from fastslow.measure.scores.curves import LearningCurve, count_to_threshold
from fastslow.measure.stats.bootstrap import RESAMPLES, Estimate, estimate
from fastslow.measure.stats.figure import Undefined, figure


@dataclass(frozen=True, slots=True)
class Probe:
    """The curves of one probe, from some stage's weights and from the base.

    `EvaluationError` if they differ in seeds, counts, unit or examples, or there is no curve.
    """

    tuned: tuple[LearningCurve, ...]
    """One per seed, from the weights that are probed."""
    base: tuple[LearningCurve, ...]
    """From the base, with the same seeds in the same order."""
    adapter: Literal["merge", "continue"]
    """Whether the probe trains a new adapter on top of the old one, or the old one further."""

    def __post_init__(self) -> None:
        curves = (*self.tuned, *self.base)
        shapes = {curve.shape for curve in curves}
        if len(self.tuned) != len(self.base) or len(shapes) != 1 or len(curves[0].counts) < 2:
            raise EvaluationError(
                f"plasticity probe: got {len(self.tuned)} curves from the stage and "
                f"{len(self.base)} from the base, at {sorted({c.counts for c in curves})}. Both "
                "sides need the same seeds, and two or more equal counts on equal examples."
            )


def probe_metrics(
    probe: Probe, *, noise_floor: float = 0.0, threshold: float | None = None
) -> dict[str, Metric]:
    """Every figure of a probe, by name; the mean over seeds is taken first.

    Gains and denominators up to `noise_floor`, in score units, count as none. Without a `threshold`
    score `probe_steps_to_threshold` and its `_base` twin are left out.
    """
    tuned, base = mean_over_seeds(probe.tuned), mean_over_seeds(probe.base)
    figures = [
        figure(name, f"{formula}, adapter policy {probe.adapter}", partial(compute, tuned, base))
        for name, (formula, compute) in _figures(probe, noise_floor).items()
    ]
    if threshold is not None:
        for name, means in (("", tuned), ("_base", base)):
            curve = LearningCurve(
                probe.base[0].unit, probe.base[0].counts, tuple((mean,) for mean in means)
            )
            reached = count_to_threshold(curve, threshold)
            figures.append(replace(reached, name=f"probe_{reached.name}{name}"))
    return {metric.name: metric for metric in figures}


def probe_estimates(
    probe: Probe,
    generator: random.Random,
    *,
    noise_floor: float = 0.0,
    resamples: int = RESAMPLES,
    names: Collection[str] | None = None,
) -> dict[str, Estimate]:
    """The figures of `probe_metrics` that are means or ratios, with bootstrap intervals.

    Examples are drawn again, the same for both sides, and with several seeds the seeds too, in
    pairs; with one seed the interval says nothing about other seeds. At least 40 draws; `names`
    are those wanted, None wants all.
    """
    metrics = probe_metrics(probe, noise_floor=noise_floor)
    seeds = len(probe.base)
    estimates = {}
    for name, (_, compute) in _figures(probe, noise_floor).items():

        def again(examples: Sequence[int], compute: Compute = compute) -> float:
            runs = generator.choices(range(seeds), k=seeds) if seeds > 1 else [0]
            tuned = mean_over_seeds([probe.tuned[i] for i in runs], examples)
            base = mean_over_seeds([probe.base[i] for i in runs], examples)
            return compute(tuned, base)

        if name != "probe_stalled" and (names is None or name in names):
            estimates[name] = estimate(
                metrics[name], probe.base[0].num_examples, again, generator, resamples
            )
    return estimates


Compute = Callable[[Sequence[float], Sequence[float]], float]


def _figures(probe: Probe, floor: float) -> dict[str, tuple[str, Compute]]:
    """Name to formula and function of the two mean curves V (probed) and V_0 (base)."""
    counts = probe.base[0].counts

    def area(means: Sequence[float]) -> float:
        points = list(zip(counts, means, strict=True))
        return sum((t - s) * (v + w) / 2 for (s, v), (t, w) in pairwise(points))

    def gained(means: Sequence[float]) -> float:
        return area([mean - means[0] for mean in means])

    def ratio(above: float, below: float, least: float, name: str) -> float:
        if below <= least:
            raise Undefined(f"the base's {name} is {below:.3g}, not above {least:.3g}")
        return above / below

    def stalled(v: Sequence[float], b: Sequence[float]) -> float:
        if b[-1] - b[0] <= floor:
            raise Undefined("the base gained nothing on the probe task either")
        return float(v[-1] - v[0] <= floor)

    span = counts[-1] - counts[0]
    return {
        "probe_start_difference": ("V(0) - V_0(0)", lambda v, b: v[0] - b[0]),
        "probe_end_difference": ("V(S) - V_0(S)", lambda v, b: v[-1] - b[-1]),
        "probe_end_ratio": (
            "V(S) / V_0(S)",
            lambda v, b: ratio(v[-1], b[-1], floor, "final score"),
        ),
        "probe_gain": ("V(S) - V(0)", lambda v, b: v[-1] - v[0]),
        "probe_gain_base": ("V_0(S) - V_0(0)", lambda v, b: b[-1] - b[0]),
        "probe_gain_ratio": (
            "(V(S) - V(0)) / (V_0(S) - V_0(0))",
            lambda v, b: ratio(v[-1] - v[0], b[-1] - b[0], floor, "gain"),
        ),
        "probe_auc": ("trapezoid area under V(s), in score x steps", lambda v, b: area(v)),
        "probe_auc_base": ("trapezoid area under V_0(s), in score x steps", lambda v, b: area(b)),
        "probe_auc_ratio": (
            "area under V(s) - V(0) / area under V_0(s) - V_0(0)",
            lambda v, b: ratio(gained(v), gained(b), floor * span, "area above its start"),
        ),
        "probe_stalled": ("1 if V(S) - V(0) <= noise floor < V_0(S) - V_0(0), else 0", stalled),
    }


def mean_over_seeds(
    curves: Sequence[LearningCurve], examples: Sequence[int] | None = None
) -> list[float]:
    """Mean over seeds of the curves' means at each point."""
    return [fmean(point) for point in zip(*(c.means(examples) for c in curves), strict=True)]
