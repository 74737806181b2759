"""A comparison of runs as plain data; docs/compare-schema.md describes its JSON form."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, TypeAlias

from fastslow.core.types import Json
from fastslow.measure.scores.guessing import Guess
from fastslow.records.cells import ExampleScores
from fastslow.results.report.section import Report
from fastslow.results.report.sections.scores import guess_json

SCHEMA_VERSION = 2
"""Raised when a key of compare.json changes its meaning or goes. Intervals of version 1 took the
seeds as fixed."""
Quantity: TypeAlias = Literal["final", "learned", "change"]
Origins: TypeAlias = Mapping[str, tuple[tuple[str, ...], ...]]
"""By name, for each arm the different values of its runs."""
GOAL = 0.05
"""Difference of scores that `Contrast.power` is about. Source: ours."""
QUANTITIES: Mapping[Quantity, str] = {
    "final": "Score at the end",
    "learned": "Score right after the task's own stage",
    "change": "Forgetting: score at the end minus right after its stage; negative = forgot",
}
"""Scores that are compared of each task. Of all three, more is better."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """One figure of two arms, and how far their difference can be trusted."""

    name: str
    """A task, a metric, a divergence or a cost."""
    baseline: float | None
    """Mean over the baseline's runs."""
    value: float | None
    """Mean over the other arm's runs."""
    difference: float | None = None
    """Value - baseline."""
    low: float | None = None
    """Lower end of the 95 % interval of the difference."""
    high: float | None = None
    covers: str | None = None
    """Sources of variance in the interval: `seeds and examples`, `seeds` or `examples`."""
    n: int = 0
    """Examples both were scored on; 0 where nothing is paired by example."""
    p_value: float | None = None
    """Two-sided; `test` names the test."""
    p_holm: float | None = None
    """Adjusted over the tasks of the same quantity (Holm 1979)."""
    test: str | None = None
    """`exact McNemar` or `normal` (mean / standard error) of one seed, else `Student's t`."""
    smallest_detectable: float | None = None
    """The smallest true difference that would be found with 80 % power."""
    power: float | None = None
    """Probability that a comparison like this one, with the spread observed, finds a true
    difference of `GOAL` at 5 %, uncorrected; None where scores are not compared."""
    reason: str | None = None
    """Why there is no difference, or no interval."""
    seed_differences: tuple[float, ...] = ()
    """The difference under each shared seed, where there are several."""
    sign_flip_p: float | None = None
    """Two-sided exact sign-flip test over them."""
    sign_flip_note: str | None = None
    """Why it may not be called significant whatever it is."""

    @property
    def power_text(self) -> str:
        """The power, in brackets, where the interval holds 0; else nothing."""
        holds_zero = self.low is not None and self.high is not None and self.low <= 0 <= self.high
        if self.power is None or not holds_zero or self.is_significant:
            return ""
        return f" (power {self.power:.2f} for {GOAL:+.2f})"

    @property
    def is_significant(self) -> bool:
        """Whether it holds at 5 % after Holm's correction over tasks."""
        return self.p_holm is not None and self.p_holm < 0.05


@dataclass(frozen=True, slots=True)
class ArmRun:
    """One run of an arm, with the content of its records."""

    run: str
    """Name of the folder that was given."""
    seed: int
    report: Report
    config: Mapping[str, Json]
    """Its config.json, flattened to dotted keys."""

    @property
    def stages(self) -> tuple[str, ...]:
        """The task of each stage, in training order."""
        return self.report.card.stages

    @property
    def last(self) -> int:
        """The last row of its matrix."""
        return len(self.stages)

    @property
    def cells(self) -> Mapping[tuple[int, str], ExampleScores]:
        """By row of the matrix and task, the score of each example under the deployed prompt."""
        rows, deployed = range(self.last + 1), self.report.table.deployed
        return {(row, task): deployed(row, task) for row in rows for task in self.report.card.tasks}


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
    """Limits of the pairing that a reader must know."""
    tasks: Mapping[Quantity, tuple[Contrast, ...]]
    metrics: tuple[Contrast, ...]
    drift: tuple[Contrast, ...]
    costs: tuple[Contrast, ...]
    """Without intervals: they were counted, not estimated."""


@dataclass(frozen=True, slots=True)
class RunComparison:
    """Everything a comparison says."""

    arms: tuple[Arm, ...]
    """The first is the baseline."""
    tasks: tuple[str, ...]
    guesses: Mapping[str, Guess]
    """By task, what guessing scores, of the first run that graded it on its examples."""
    settings: Mapping[str, tuple[Json, ...]]
    """Configuration keys whose values differ, with the value of each arm's first run."""
    comparisons: tuple[ArmComparison, ...]
    """One per arm but the first."""
    origins: Origins = field(default_factory=dict)
    """Versions, machine, commit and fingerprints of data that differ; see `origin.origins`."""


def comparison_json(comparison: RunComparison, verdicts: tuple[str, ...]) -> dict[str, object]:
    """The comparison as plain data."""
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": verdicts,
        "baseline": comparison.arms[0].name,
        "arms": [
            {"name": arm.name, "runs": [_run_json(run) for run in arm.runs]}
            for arm in comparison.arms
        ],
        "tasks": comparison.tasks,
        "guesses": {task: guess_json(guess) for task, guess in comparison.guesses.items()},
        "origins": comparison.origins,
        "comparisons": [_arm_json(arm) for arm in comparison.comparisons],
    }


def _run_json(run: ArmRun) -> dict[str, object]:
    report = run.report
    return {
        "run": run.run,
        "seed": run.seed,
        "state": report.card.state,
        "config_hash": report.card.config_hash,
        "command": report.card.command,
    }


def _arm_json(arm: ArmComparison) -> dict[str, object]:
    groups = {"metrics": arm.metrics, "drift": arm.drift, "costs": arm.costs}
    groups |= {str(quantity): contrasts for quantity, contrasts in arm.tasks.items()}
    figures = [field.name for field in fields(Contrast) if field.name != "name"]
    by_name = {
        group: {c.name: {name: getattr(c, name) for name in figures} for c in contrasts}
        for group, contrasts in groups.items()
    }
    return {"arm": arm.arm, "pairs": arm.pairs, "notes": arm.notes, **by_name}
