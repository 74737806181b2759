"""The search for one key of every arm, on validation, before the arms are compared on test.

A ranking of methods says little while one of them has a rate that suits it and another has not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

from fastslow.config.models import RunConfig
from fastslow.core.files import read_json
from fastslow.results.ablation.plan import Plan, PlannedRun
from fastslow.results.render.layout import Table, row


@dataclass(frozen=True)
class Trial:
    """One value for one arm."""

    arm: str
    value: float
    config: RunConfig
    """The arm's configuration with that value."""
    run: PlannedRun
    """The same budget under another seed, scored on validation."""


@dataclass(frozen=True)
class TrialScore:
    """What a value scored, as plain data."""

    arm: str
    value: float
    score: float | None
    """Average accuracy on validation after the last stage, in [0, 1]; None until it is run."""
    is_best: bool


@dataclass(frozen=True)
class Search:
    """The trials of an ablation."""

    path: str
    """The key that is searched."""
    plan: Plan
    """The runs of the trials alone."""
    trials: tuple[Trial, ...]
    file: Path
    """Of the ablation, to be read again once all trials are run."""
    overrides: tuple[str, ...]

    @cached_property
    def _scores(self) -> Mapping[str, float]:
        """By name of a trial's run, its average accuracy."""
        scores = {name: average_accuracy(path) for name, path in self.plan.finished().items()}
        return {name: score for name, score in scores.items() if score is not None}

    def best(self) -> dict[str, Trial]:
        """By arm the trial with the highest score, of equals the first; only of arms all tried."""
        by_arm: dict[str, list[Trial]] = {}
        for trial in self.trials:
            by_arm.setdefault(trial.arm, []).append(trial)
        return {
            arm: max(trials, key=lambda trial: self._scores[trial.run.name])
            for arm, trials in by_arm.items()
            if all(trial.run.name in self._scores for trial in trials)
        }

    def scores(self) -> tuple[TrialScore, ...]:
        """Every trial with its score, in the order of the file."""
        best = self.best()
        return tuple(
            TrialScore(
                trial.arm,
                trial.value,
                self._scores.get(trial.run.name),
                best.get(trial.arm) is trial,
            )
            for trial in self.trials
        )


def search_table(search: Search) -> Table:
    """One row per trial, as far as they have been run."""
    return scores_table(search.path, search.scores())


def scores_table(path: str, scores: Sequence[TrialScore]) -> Table:
    """What each value scored for each arm."""
    rows = [
        row(
            trial.arm,
            f"{trial.value:g}",
            "-" if trial.score is None else f"{trial.score:.3f}",
            "chosen" if trial.is_best else "",
        )
        for trial in scores
    ]
    return Table(
        f"Search of {path}",
        ("arm", path, "average accuracy, validation", ""),
        tuple(rows),
        "Each arm at its own budget, under a seed that is not among those compared; scores after "
        "the last stage, on examples of the validation split. An arm without a score for every "
        "value keeps that of the file.",
    )


def average_accuracy(path: Path) -> float | None:
    """Mean of the last row over trained tasks, each once; None where a report has none."""
    try:
        report = read_json(path / "report.json")
        last = dict(zip(report["tasks"], report["scores"][-1], strict=True))
        return round(fmean(last[task] for task in {s["task"]: s for s in report["stages"]}), 6)
    except (OSError, ValueError, LookupError, TypeError):
        return None
