"""The plasticity probes of several runs, seen as one."""

from collections.abc import Sequence
from statistics import fmean

from fastslow.ablation.efficiency import RESAMPLES
from fastslow.ablation.records import RunRecord
from fastslow.errors import EvaluationError
from fastslow.measure.bootstrap import Estimate as ProbeEstimate
from fastslow.measure.plasticity import Probe, probe_estimates
from fastslow.seeds import named_random


def pooled_probe(runs: Sequence[RunRecord]) -> Probe | None:
    """The probes of several runs as one, a run's seed as the probe's; None without two alike."""
    probes = [run.probe for run in runs if run.probe is not None]
    if len(probes) < 2:
        return None
    try:
        return Probe(
            tuple(curve for probe in probes for curve in probe.tuned),
            tuple(curve for probe in probes for curve in probe.base),
            probes[0].adapter,
        )
    except EvaluationError:
        return None  # probes of different lengths, which a change of configuration leaves behind


def probed(runs: Sequence[RunRecord]) -> ProbeEstimate | None:
    """`probe_gain_ratio` over the probes of several runs, with its interval."""
    probe = pooled_probe(runs)
    if probe is None:
        return None
    floor = max(run.noise_floor for run in runs)
    generator = named_random(0, "claims", "plasticity")
    estimates = probe_estimates(probe, generator, noise_floor=floor, resamples=RESAMPLES)
    return estimates["probe_gain_ratio"]


def own_gain_ratio(run: RunRecord) -> float | None:
    """The same of one run, a point without an interval; None where the base gained nothing."""
    if run.probe is None:
        return None
    tuned, base = (
        fmean(curve.means()[-1] - curve.means()[0] for curve in side)
        for side in (run.probe.tuned, run.probe.base)
    )
    return tuned / base if base > run.noise_floor else None
