"""Proxies of plasticity, cheap enough for every stage: ranks of features, and units that sleep.

They correlate with lost plasticity in small networks trained from scratch and prove nothing:
RL's Razor (arXiv 2509.04259) found that ranks and weight norms did not predict forgetting. Inputs
are the same at every stage. `policy/activations.py` records units and features; sizes of weights
are in `geometry.py`, the policy's entropy in `drift.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from fastslow.core.types import Metric
from fastslow.measure.model.ranks import effective_rank, energy_rank, srank, stable_rank
from fastslow.measure.stats.figure import Undefined, figure

TAU = 0.025
"""Units that score up to this are dormant, for any activation. Source: Sokar et al. 2023."""
ACTIVE_SHARE = 0.01
"""Units active on a smaller share of samples are inactive: right for ReLU-like networks, where a
unit is off at exactly 0. Source: Dohare et al. 2024 (Nature 632:768)."""


def dormancy_scores(mean_abs: Sequence[float]) -> list[float]:
    """s_u = E|h_u| / mean over the layer's units of E|h| (Sokar et al. 2023, arXiv 2302.12902).

    Their mean is 1; `Undefined` where every unit of the layer is silent.
    """
    mean = fmean(mean_abs) if mean_abs else 0.0
    if mean == 0:
        raise Undefined("every unit of the layer is silent")
    return [value / mean for value in mean_abs]


def plasticity_proxies(
    feature_values: Sequence[float],
    mean_abs: Mapping[str, Sequence[float]],
    active_share: Mapping[str, Sequence[float]],
    samples: int,
) -> dict[str, Metric]:
    """Every proxy of one policy on one set of inputs, by name.

    `feature_values` are singular values of the features, [samples x width]; by layer, `mean_abs`
    has E|h_u| of each unit and `active_share` the share of samples on which it is above 0.
    """

    def share(is_asleep: Callable[[str], list[bool]]) -> float:
        if not mean_abs:
            raise Undefined("the model has no layer of units that we know how to find")
        return fmean(fmean(is_asleep(layer)) for layer in mean_abs)

    def dormant_in(layer: str) -> list[bool]:
        return [score <= TAU for score in dormancy_scores(mean_abs[layer])]

    def inactive_in(layer: str) -> list[bool]:
        return [active < ACTIVE_SHARE for active in active_share[layer]]

    inputs, layers = f"{samples} positions", f"mean over layers {', '.join(mean_abs)}"
    dormant = f"share of units with E|h_u| <= {TAU} of their layer's mean (Sokar et al. 2023)"
    inactive = f"share of units active on < {ACTIVE_SHARE} of samples (Dohare et al. 2024)"
    least = "least k with 0.99 of"
    proxies: dict[str, tuple[str, Callable[[], float]]] = {
        "feature_effective_rank": (
            f"exp(entropy of s_i / sum s), {inputs} (Roy & Vetterli 2007)",
            lambda: effective_rank(feature_values),
        ),
        "feature_stable_rank": (
            f"sum s_i^2 / s_1^2, {inputs} (Rudelson & Vershynin 2007)",
            lambda: stable_rank(feature_values),
        ),
        "feature_srank": (
            f"{least} sum s, {inputs} (Kumar et al. 2021, arXiv 2010.14498)",
            lambda: srank(feature_values),
        ),
        "feature_energy_rank": (
            f"{least} sum s^2, {inputs} (Dohare et al. 2024)",
            lambda: energy_rank(feature_values),
        ),
        "tau_dormant_frac": (f"{dormant}, {layers}", lambda: share(dormant_in)),
        "inactive_frac": (f"{inactive}, {layers}", lambda: share(inactive_in)),
    }
    return {name: figure(name, formula, compute) for name, (formula, compute) in proxies.items()}
