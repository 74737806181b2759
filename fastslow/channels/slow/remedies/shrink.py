"""Shrinking: after a stage the adapter is scaled down as far as its gain allows.

Scaling multiplies every B of the trainable part: under `adapter_policy: continue` that is the whole
adapter, measured from the base; under the other policies it is exactly what the stage trained.
After WiSE-FT (arXiv 2109.01903), with the update itself scaled and not every weight.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from fastslow.channels.slow.remedies.base import Ended, EndReport, Memory, Remedy
from fastslow.core.distributed import from_leader
from fastslow.task.definition import Task

if TYPE_CHECKING:
    from fastslow.policy.policy import Policy

FACTORS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Factors that are tried, in this order."""
ROUNDING = 1e-9
"""Scores this close are the same score."""


def shrink(keep_share: float, scales_earlier: bool) -> Remedy:
    """Scales the adapter down at the end of a stage, keeping a share in (0, 1] of its gain.

    `scales_earlier`: what earlier stages trained is scaled too; their tasks' scores are observed.
    """

    def end(ended: Ended, memory: Memory) -> EndReport:
        stage = ended.stage
        earlier = stage.earlier if scales_earlier else ()
        sizes: dict[str, int] = {}

        def score(task: Task) -> float:
            scores = ended.score(task)
            sizes[task.name] = len(scores)
            return fmean(scores.values())

        def observe() -> dict[str, float | None]:
            scores = {f"score/{task.name}": score(task) for task in earlier}
            return {"kl": ended.kl(stage.task), **scores}

        result = scale_down(stage.policy, keep_share, lambda: score(stage.task), observe)
        figures: dict[str, float | None] = {
            "keep_share": keep_share,
            "factor": result.factor,
            "validation_start": result.start,
            "validation_before": result.before,
            "validation_after": result.after,
            "validation_n": float(sizes[stage.task.name]),
            "kl_before": result.observed_before["kl"],
            "kl_after": result.observed_after["kl"],
        }
        for task in earlier:
            figures[f"earlier_before/{task.name}"] = result.observed_before[f"score/{task.name}"]
            figures[f"earlier_after/{task.name}"] = result.observed_after[f"score/{task.name}"]
        return EndReport(figures, () if result.reason is None else (result.reason,))

    return Remedy(end=end, needs_start=True)


@dataclass(frozen=True)
class ShrinkResult:
    """How far the adapter was scaled down, and what that changed."""

    factor: float
    """The adapter's update is multiplied by it, in (0, 1]."""
    reason: str | None
    """Why it stayed 1; None when it did not."""
    start: float
    """Validation score with the adapter as the stage found it, in [0, 1]."""
    before: float
    """With the adapter as the stage left it."""
    after: float
    """With the scaled adapter."""
    observed_before: Mapping[str, float | None]
    """Other figures with the adapter as the stage left it."""
    observed_after: Mapping[str, float | None]
    """And with the scaled one."""


def scale_down(
    policy: "Policy",
    keep_share: float,
    validate: Callable[[], float],
    observe: Callable[[], Mapping[str, float | None]],
) -> ShrinkResult:
    """Scale the adapter down as far as `keep_share` of the stage's validation gain is kept.

    Goes down `FACTORS` and stops at the first that keeps less, so that every factor tried between
    the one chosen and 1 keeps enough too: scores need not fall steadily, and a lone lucky point
    below a gap is not taken. `validate` scores the policy as it is, in [0, 1]; `observe` gives
    other figures of it, for the record.
    """
    adapters = policy.adapters
    assert adapters.start is not None, "the stage began without keeping its start"
    weights = adapters.copied()
    observed, before = observe(), from_leader(validate())
    adapters.put(adapters.start)
    at_start = from_leader(validate())
    gain = before - at_start
    factor, after, reason = 1.0, before, None
    for smaller in FACTORS if gain > ROUNDING else ():
        adapters.scale(weights, smaller)
        score = from_leader(validate())
        if score - at_start < keep_share * gain - ROUNDING:
            break
        factor, after = smaller, score
    adapters.scale(weights, factor)
    if gain <= ROUNDING:
        reason = f"no validation gain to keep a share of: {at_start:.3f} to {before:.3f}"
    elif factor == 1.0:
        reason = f"{FACTORS[0]} already keeps less than {keep_share:g} of the gain"
    observed_after = observe() if reason is None else observed
    return ShrinkResult(factor, reason, at_start, before, after, observed, observed_after)
