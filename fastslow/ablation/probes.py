"""The plasticity probes of several runs, seen as one."""

from collections.abc import Sequence
from statistics import fmean

from fastslow.ablation.efficiency import RESAMPLES
from fastslow.ablation.records import RunRecord
from fastslow.errors import EvaluationError
from fastslow.measure.bootstrap import Estimate as ProbeEstimate
from fastslow.measure.curves import LearningCurve
from fastslow.measure.plasticity import Probe, probe_estimates
from fastslow.seeds import named_random


def pooled_probe(runs: Sequence[RunRecord]) -> Probe | None:
    """The probes of several runs as one with a curve per seed; None without two seeds alike.

    A run's seed counts as the probe's: what a seed has in several orders, or from several fresh
    runs, is one mean curve, because it is no further seed.
    """
    by_seed: dict[int, list[Probe]] = {}
    for run in runs:
        if run.probe is not None:
            by_seed.setdefault(run.seed, []).append(run.probe)
    if len(by_seed) < 2:
        return None
    probes = [probe for found in by_seed.values() for probe in found]
    try:
        _joined(probes)
    except EvaluationError:
        return None  # probes of different lengths, which a change of configuration leaves behind
    means = [_joined(found) for found in by_seed.values()]
    return Probe(
        tuple(_mean_curve(probe.tuned) for probe in means),
        tuple(_mean_curve(probe.base) for probe in means),
        probes[0].adapter,
    )


def _joined(probes: Sequence[Probe]) -> Probe:
    return Probe(
        tuple(curve for probe in probes for curve in probe.tuned),
        tuple(curve for probe in probes for curve in probe.base),
        probes[0].adapter,
    )


def _mean_curve(curves: Sequence[LearningCurve]) -> LearningCurve:
    """Mean score of each example at each point."""
    points = zip(*(curve.scores for curve in curves), strict=True)
    scores = tuple(tuple(map(fmean, zip(*rows, strict=True))) for rows in points)
    return LearningCurve(curves[0].unit, curves[0].at, scores)


def probed(runs: Sequence[RunRecord]) -> ProbeEstimate | None:
    """`probe_gain_ratio` over the probes of several runs, with its interval."""
    probe = pooled_probe(runs)
    if probe is None:
        return None
    floor = max(run.noise_floor for run in runs)
    generator = named_random(0, "claims", "plasticity")
    estimates = probe_estimates(probe, generator, noise_floor=floor, resamples=RESAMPLES)
    return estimates["probe_gain_ratio"]


def gain_ratios(runs: Sequence[RunRecord]) -> list[float]:
    """The same of every seed, without intervals; not of seeds whose base gained nothing."""
    probe = pooled_probe(runs)
    if probe is None:
        return []
    floor = max(run.noise_floor for run in runs)
    gains = [
        tuple(curve.means()[-1] - curve.means()[0] for curve in curves)
        for curves in zip(probe.tuned, probe.base, strict=True)
    ]
    return [tuned / base for tuned, base in gains if base > floor]
