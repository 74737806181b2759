"""A comparison of runs as plain data; docs/compare-schema.md describes its JSON form.

How it is computed is `build.py`'s, how it looks `tables.py`'s.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

from fastslow.core.types import Json
from fastslow.measure.stats.intervals import Interval
from fastslow.results.report.data import Report

SCHEMA_VERSION = 1
"""Raised when a key of compare.json changes its meaning or goes."""
Quantity: TypeAlias = Literal["final", "learned", "change"]
QUANTITIES: Mapping[Quantity, str] = {
    "final": "Score at the end",
    "learned": "Score right after the task's own stage",
    "change": "Forgetting: score at the end minus right after its stage; negative = forgot",
}
"""What is compared of each task. Of all three, more is better."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """One figure of two arms, and how far their difference can be trusted."""

    name: str
    """A task, a metric, a divergence or what was spent."""
    baseline: float | None
    """Mean over the baseline's runs."""
    value: float | None
    """Mean over the other arm's runs."""
    difference: float | None
    """Value - baseline."""
    low: float | None
    """Lower end of the 95 % interval of the difference."""
    high: float | None
    n: int
    """Examples both were scored on; 0 where nothing is paired."""
    p_value: float | None
    """Two-sided; `test` says of what."""
    p_holm: float | None
    """Adjusted over the tasks of the same quantity (Holm 1979)."""
    test: str | None
    """`exact McNemar`, or `normal` for mean / standard error."""
    smallest_detectable: float | None
    """The smallest true difference that would be found with 80 % power."""
    reason: str | None
    """Why there is no difference, or no interval."""
    seed_differences: tuple[float, ...] = ()
    """The difference under each shared seed, where there are several."""
    sign_flip_p: float | None = None
    """Two-sided exact sign-flip test over them."""
    sign_flip_note: str | None = None
    """Why it may not be called significant whatever it is."""

    @property
    def is_beyond_chance(self) -> bool:
        """Whether it holds at 5 % after Holm's correction over tasks."""
        return self.p_holm is not None and self.p_holm < 0.05


@dataclass(frozen=True, slots=True)
class ArmRun:
    """One run of an arm."""

    run: str
    """Name of the folder that was given."""
    seed: int
    report: Report


@dataclass(frozen=True, slots=True)
class Arm:
    """Runs that differ in nothing but their seed."""

    name: str
    runs: tuple[ArmRun, ...]


@dataclass(frozen=True, slots=True)
class ArmComparison:
    """One arm against the baseline."""

    arm: str
    pairs: tuple[tuple[str, str], ...]
    """Runs of baseline and arm that were compared with each other."""
    notes: tuple[str, ...]
    """What a reader must know of the pairing."""
    tasks: Mapping[Quantity, tuple[Contrast, ...]]
    metrics: tuple[Contrast, ...]
    drift: tuple[Contrast, ...]
    costs: tuple[Contrast, ...]
    """Without intervals: they were counted, not estimated."""


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """One score of one run, for scores.csv and the figure."""

    arm: str
    run: str
    seed: int
    task: str
    phase: Literal["base", "learned", "final"]
    score: float | None
    interval: Interval | None
    n: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything a comparison says."""

    arms: tuple[Arm, ...]
    """The first is the baseline."""
    tasks: tuple[str, ...]
    settings: Mapping[str, tuple[Json, ...]]
    """Configuration keys whose values differ, with the value of each arm's first run."""
    comparisons: tuple[ArmComparison, ...]
    """One per arm but the first."""
    scores: tuple[ScoreLine, ...]


def comparison_json(found: Comparison, verdicts: tuple[str, ...]) -> dict[str, Json]:
    """The comparison as plain data."""
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": list(verdicts),
        "baseline": found.arms[0].name,
        "arms": [
            {
                "name": arm.name,
                "runs": [
                    {
                        "run": run.run,
                        "seed": run.seed,
                        "state": run.report.state,
                        "config_hash": run.report.config_hash,
                        "command": list(run.report.command),
                    }
                    for run in arm.runs
                ],
            }
            for arm in found.arms
        ],
        "tasks": list(found.tasks),
        "comparisons": [_arm_json(comparison) for comparison in found.comparisons],
    }


def _arm_json(found: ArmComparison) -> dict[str, Json]:
    def plain(contrasts: tuple[Contrast, ...]) -> dict[str, Json]:
        made: dict[str, Json] = {}
        for contrast in contrasts:
            values = asdict(contrast)
            made[values.pop("name")] = values
        return made

    return {
        "arm": found.arm,
        "pairs": [list(pair) for pair in found.pairs],
        "notes": list(found.notes),
        **{quantity: plain(contrasts) for quantity, contrasts in found.tasks.items()},
        "metrics": plain(found.metrics),
        "drift": plain(found.drift),
        "costs": plain(found.costs),
    }
