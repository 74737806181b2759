"""How a run's policy stands after one stage: per task, its score then and what it was before."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from fastslow.core.errors import CheckpointError
from fastslow.core.types import Metric
from fastslow.measure.scores.all_metrics import final_metrics
from fastslow.measure.scores.guessing import Guess
from fastslow.policy.saved import KeptPolicy
from fastslow.records.cells import Cell, CellTable, Comparison, ExampleScores
from fastslow.records.deployments import deployed_row
from fastslow.records.events import GuessEvent
from fastslow.records.jsonl import read_events, read_scores
from fastslow.records.new_folder import stage_path
from fastslow.records.run_folder import require_no_links
from fastslow.records.seal import require_unbroken
from fastslow.results.reading import read_card, read_object


@dataclass(frozen=True, slots=True)
class TaskStanding:
    """One task, as of one row of the score matrix."""

    task: str
    version: str | None
    """`definition@version`; None when it was never scored."""
    learned_row: int | None
    """Row after its last stage until then; None when no stage has visited it."""
    best: tuple[int, float] | None
    """The row between `learned_row` and this one whose score is above both, and the highest, with
    that score; None without such a row."""
    base: Cell
    """Row 0."""
    now: Cell
    change: Comparison
    """Now minus `learned_row`, as in the report."""
    net: Comparison
    """Now minus the base."""
    floor: Metric
    """How far repeated evaluations of the base lie apart."""
    weights: str | None
    """Fingerprint of the weights it was scored with; None when it was not."""
    text: str | None
    """Hash of the prompt it was scored with; None when it was not."""
    scores: ExampleScores
    """Score of each example."""
    labels: Sequence[tuple[bool, str]]
    """The cluster of each example, in the same order."""
    guess: Guess | None
    """What guessing scores; None where the run did not grade it."""
    is_above_chance: bool | None
    """Whether its score is significantly above both guesses; None without them or a score."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A run's policy as of one row of the score matrix."""

    path: Path
    run: str
    """Name the run folder had when it was made."""
    state: str
    """One of `rundir.STATES`."""
    config_hash: str
    row: int
    """The policy after the stage with this number, from 1."""
    stages: tuple[str, ...]
    """Tasks of all stages of the run, in order."""
    tasks: tuple[TaskStanding, ...]
    """Every column of the matrix, in its order."""
    metrics: Mapping[str, Metric]
    """As they stood after that stage."""
    scaling: float | None
    """`alpha / rank` of the run's adapters; None without any."""

    @property
    def folder(self) -> Path:
        """Where adapter and prompts of that stage are kept."""
        return self.path / stage_path(self.row - 1, self.stages[self.row - 1])

    @property
    def trained(self) -> tuple[TaskStanding, ...]:
        """The tasks that a stage has visited until then."""
        return tuple(task for task in self.tasks if task.learned_row is not None)


def read_standing(run: Path, row: int | None = None) -> Standing:
    """Compute how a run's policy stands after stage `row`, or the deployed one; only reads.

    Raises:
        CheckpointError: It is not a run folder, has no such stage, was edited since it was sealed,
            or a record in it is damaged.
    """
    require_no_links(run)
    require_unbroken(run)
    card = read_card(run / "run.json")
    stages = card.stages
    row = deployed_row(run, len(stages)) if row is None else row
    if not 1 <= row <= len(stages):
        raise CheckpointError(
            f"{run}: there is no stage {row}. Known: 1 to {len(stages)} "
            f"({', '.join(stages)}). Give one of these numbers."
        )
    scores = read_scores(run / "scores.jsonl")
    events, tasks = read_events(run / "events.jsonl"), card.tasks
    table = CellTable(scores, stages[:row], events)
    guesses = {event.task: event.guess for event in events if isinstance(event, GuessEvent)}
    versions = {line.sample.task: line.sample.version for line in scores}
    weights: dict[tuple[str, str | None], set[str]] = {}
    for line in scores:
        if line.row == row and line.cycle is None:
            sample = line.sample
            weights.setdefault((sample.task, sample.text_hash), set()).add(sample.weights)
    floors = [floor for task in tasks if (floor := table.base_floor(task).value) is not None]
    return Standing(
        path=run,
        run=card.run,
        state=card.state,
        config_hash=card.config_hash,
        row=row,
        stages=stages,
        tasks=tuple(
            _task(table, weights, row, task, versions.get(task), guesses.get(task))
            for task in tasks
        ),
        metrics=final_metrics(table.matrix(tasks), noise_floor=max(floors, default=None)),
        scaling=_scaling(run),
    )


def _scaling(run: Path) -> float | None:
    slow = read_object(run / "config.json").get("slow")
    try:
        return None if slow is None else slow["lora"]["alpha"] / slow["lora"]["rank"]
    except (LookupError, TypeError, ZeroDivisionError) as error:
        raise CheckpointError(
            f"{run / 'config.json'}: slow.lora has no rank and alpha, got {type(error).__name__}. "
            "Restore it from a copy."
        ) from error


def _task(
    table: CellTable,
    weights_of: Mapping[tuple[str, str | None], Set[str]],
    row: int,
    task: str,
    version: str | None,
    guess: Guess | None,
) -> TaskStanding:
    learned = table.learned_row(task)
    between = range(row if learned is None else learned, row + 1)
    levels = {i: score for i in between if (score := table.score(i, task)) is not None}
    best = max(levels, key=lambda i: (levels[i], i in (learned, row)), default=row)
    text, scored = table.text(row, task), table.deployed(row, task)
    weights = weights_of.get((task, text), frozenset())
    if len(weights) > 1:
        raise CheckpointError(
            f"scores.jsonl: row {row} of task {task!r} was scored with weights "
            f"{' and '.join(sorted(weights))}, expected one. Restore the file from a copy."
        )
    return TaskStanding(
        task=task,
        version=version,
        learned_row=learned,
        best=None if best in (learned, row) else (best, levels[best]),
        base=table.cell(0, task),
        now=table.cell(row, task),
        change=table.compare(task, learned, row),
        net=table.compare(task, 0, row),
        floor=table.base_floor(task),
        weights=next(iter(weights), None),
        text=text,
        scores=scored,
        labels=table.labels(task, table.deployed(row, task)),
        guess=guess,
        is_above_chance=guess.is_below(scored, table.clusters.get(task))
        if guess and scored
        else None,
    )


def verify_kept(standing: Standing, policy: KeptPolicy) -> None:
    """Make sure that the adapters and prompts in a stage's folder are those that were scored.

    Raises:
        CheckpointError: The row was not measured, or one of the files is another.
    """

    def refuse_other(what: str, now: str, scored: str) -> None:
        raise CheckpointError(
            f"{policy.folder}: {what} is not the one that was scored, got {now}, expected "
            f"{scored}. The folder was changed: restore it from a copy."
        )

    for task in standing.tasks:
        if task.weights is None or task.text is None:
            raise CheckpointError(
                f"{standing.path}: row {standing.row} of task {task.task!r} is not measured, so "
                f"the policy after stage {standing.row} has no scores. Resume the run, or name a "
                "stage that is complete."
            )
        if (weights := policy.weights_of(task.task)) != task.weights:
            refuse_other(f"the adapter for task {task.task!r}", f"weights {weights}", task.weights)
        if standing.scaling is not None:
            policy.require_settings(task.task, standing.scaling)
        live = policy.live.get(task.task)
        if live is not None and task.learned_row is not None and live.text_hash != task.text:
            refuse_other(f"the prompt of task {task.task!r}", live.text_hash, task.text)
