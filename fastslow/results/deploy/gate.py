"""The gate: may a run's policy ship, by its records? One that cannot be judged is refused."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from fastslow.core.errors import ConfigError, GateError, nearest
from fastslow.measure.stats.intervals import PairedDifference, paired_difference
from fastslow.policy.saved import read_kept
from fastslow.records.cells import Comparison
from fastslow.records.data import read_identity, require_comparable
from fastslow.results.deploy.standing import Standing, TaskStanding, read_standing, verify_kept
from fastslow.results.report.gate_rules import (
    MAX_FORGETTING,
    MAX_TASK_FORGETTING,
    RuleName,
    RuleResult,
    judge_losses,
    judge_score,
)

WeightsSeen: TypeAlias = Literal["verified", "not in this folder"]


@dataclass(frozen=True, slots=True)
class GateOptions:
    """The user's demands; `ConfigError` for a number that is not in [0, 1]."""

    max_forgetting: float = MAX_FORGETTING
    """Largest mean loss over tasks, in score units, in [0, 1]."""
    max_task_forgetting: float = MAX_TASK_FORGETTING
    """Largest loss of one task, in score units, in [0, 1]."""
    min_scores: Mapping[str, float] = field(default_factory=dict)
    """By task, the least score it must have, in [0, 1]."""
    strict: bool = False
    """Whether bounds of the 95 % intervals are compared in place of the estimates."""
    against: str | None = None
    """Run folder of the baseline, as the user wrote it."""

    def __post_init__(self) -> None:
        named = {f"--min-score {task}": score for task, score in self.min_scores.items()}
        named["--max-forgetting"] = self.max_forgetting
        named["--max-task-forgetting"] = self.max_task_forgetting
        for name, value in named.items():
            if not 0 <= value <= 1:
                raise ConfigError(f"gate {name}: expected a number in [0, 1], got {value}.")


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """The gate's answer and its grounds."""

    standing: Standing
    baseline: Standing | None
    options: GateOptions
    rules: tuple[RuleResult, ...]
    """Every rule applied; at least one."""
    notes: tuple[str, ...]
    """Limits that a reader must know; may hold names from outside."""
    weights_seen: WeightsSeen
    """Whether the adapter and prompts in the folder were compared with the records."""

    @property
    def passed(self) -> bool:
        """Whether every rule holds."""
        return all(rule.passed for rule in self.rules)

    @property
    def failed(self) -> tuple[RuleResult, ...]:
        """The rules that do not hold."""
        return tuple(rule for rule in self.rules if not rule.passed)


def judge(run: Path, options: GateOptions) -> GateVerdict:
    """Judge the policy a run is deployed with; only reads the run folder.

    Raises:
        GateError: The run or the baseline is not finished, is missing a score, or the two cannot
            be compared.
        CheckpointError: One of the folders is not a run folder, a record is damaged, the adapter
            that lies there is not the one that was scored, or the baseline was made on other data.
    """
    standing = _finished(run)
    baseline = None
    if options.against is not None:
        if Path(options.against).resolve() == run.resolve():
            raise GateError(
                f"gate --against: {options.against} is the run itself, so nothing could differ. "
                "Give the run whose policy is in use now."
            )
        baseline = _finished(Path(options.against))
        require_comparable([read_identity(baseline.path), read_identity(run)], may_grow=True)
    seen: WeightsSeen = "not in this folder"
    if standing.folder.is_dir():
        verify_kept(standing, read_kept(standing.folder))
        seen = "verified"
    tasks = {task.task: task for task in standing.tasks}
    changes = {
        name: _measured(standing, name, task.change)
        for name, task in tasks.items()
        if task.learned_row is not None and task.learned_row < standing.row
    }
    net = {name: _measured(standing, name, task.net) for name, task in tasks.items()}
    rules = [
        *_losses(("forgetting", "task_forgetting"), changes, tasks, options),
        *_losses((None, "below_base"), net, tasks, options),
    ]
    if baseline is not None:
        changes = _changes_since(baseline, standing.path, tasks)
        rules += _losses(("against", "task_against"), changes, tasks, options)
    for name, least in sorted(options.min_scores.items()):
        if name not in tasks:
            hint = nearest(name, tasks)
            raise ConfigError(f"gate --min-score: this run has no task {name!r}.{hint}")
        now = tasks[name].now
        assert now.score is not None
        score = (now.score, now.interval, now.n)
        rules.append(judge_score(name, *score, least, strict=options.strict))
    notes = tuple(_notes(standing, baseline))
    return GateVerdict(standing, baseline, options, tuple(rules), notes, seen)


def _finished(run: Path) -> Standing:
    standing = read_standing(run)
    if standing.state != "finished":
        raise GateError(
            f"{run}: the run is {standing.state}, expected finished. A run that has not ended "
            f"cannot be judged; continue with: fastslow resume {run}"
        )
    for task in standing.tasks:
        if task.now.score is None or task.base.score is None:
            row = standing.row if task.now.score is None else 0
            raise GateError(
                f"{run}: the score of task {task.task!r} in row {row} is missing. Every task needs "
                "one in row 0 and in the row that is judged; restore scores.jsonl from a copy."
            )
    return standing


def _changes_since(
    baseline: Standing, run: Path, tasks: Mapping[str, TaskStanding]
) -> dict[str, PairedDifference]:
    """Changes of every task of the baseline, paired on examples."""
    changes: dict[str, PairedDifference] = {}
    for before in baseline.tasks:
        now = tasks.get(before.task)
        if now is None:
            raise GateError(
                f"gate --against: task {before.task!r} of the baseline {baseline.path} was not "
                f"scored by {run}. Whether it was lost is not known; list it under "
                "`tasks` of the run, so that it is scored as a held-out task."
            )
        if now.version != before.version or now.scores.keys() != before.scores.keys():
            raise GateError(
                f"gate --against: task {before.task!r} was scored as {before.version} on "
                f"{len(before.scores)} examples by the baseline, and as {now.version} on "
                f"{len(now.scores)} by this run; they are not the same ones. Use the same version "
                "of the task and the same evaluation.test_examples."
            )
        changes[before.task] = paired_difference(
            list(before.scores.values()),
            [now.scores[example] for example in before.scores],
            before.labels,
        )
    return changes


def _losses(
    rules: tuple[RuleName | None, RuleName],
    changes: Mapping[str, PairedDifference],
    tasks: Mapping[str, TaskStanding],
    options: GateOptions,
) -> list[RuleResult]:
    floors = {name: tasks[name].floor.value for name in changes}
    thresholds = (options.max_forgetting, options.max_task_forgetting)
    return judge_losses(rules, changes, floors, thresholds, strict=options.strict)


def _measured(standing: Standing, task: str, comparison: Comparison) -> PairedDifference:
    if comparison.difference is None:
        raise GateError(
            f"{standing.path}: task {task!r} cannot be judged: {comparison.reason}. Every row from "
            "the one in which it was learned must be measured, on the same examples."
        )
    return comparison.difference


def _notes(standing: Standing, baseline: Standing | None) -> list[str]:
    notes = []
    if standing.row < len(standing.stages):
        notes.append(
            f"rolled back: judged is the policy after stage {standing.row} of "
            f"{len(standing.stages)}"
        )
    for task in standing.trained:
        if task.best is not None:
            row, score = task.best
            notes.append(
                f"{task.task} scored {score:.2f} after stage {row}, more than right after its own; "
                "the highest of several scores is a lucky one, so the loss since then is not judged"
            )
    if all(task.learned_row in (None, standing.row) for task in standing.tasks):
        notes.append("no task was learned before the last stage: there is no forgetting to judge")
    gained = [t for t in standing.trained if t.net.difference and t.net.difference.is_rise]
    if not gained:
        notes.append("no task is significantly above the base: who learned nothing forgets nothing")
    if guessing := [t.task for t in standing.trained if t.is_above_chance is False]:
        notes.append(f"not significantly above chance: {', '.join(guessing)}")
    if all(task.floor.value is None for task in standing.tasks):
        notes.append(
            "the noise floor is not measured (evaluation.base_repeats = 2 measures it): "
            "thresholds are the options alone"
        )
    if baseline is not None:
        names = {task.task for task in baseline.tasks}
        if new := [task.task for task in standing.tasks if task.task not in names]:
            notes.append(f"not in the baseline, so not compared with it: {', '.join(new)}")
    return notes


def min_scores(words: Sequence[str]) -> dict[str, float]:
    """Read `TASK=SCORE` words.

    Raises:
        ConfigError: A word is not of that form, or a task is given two scores.
    """
    scores = {}
    for word in words:
        task, _, number = word.rpartition("=")
        if task in scores:
            raise ConfigError("gate --min-score: a task is named twice. Give one score per task.")
        try:
            scores[task] = float(number)
        except ValueError:
            task = ""
        if not task:
            raise ConfigError(
                f"gate --min-score: expected TASK=SCORE, got {word!r}. For example: "
                "--min-score word_valence=0.5"
            )
    return scores
