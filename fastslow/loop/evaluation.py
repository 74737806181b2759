"""The evaluation of a run: rows of the score matrix, the 2x2 of both channels, learning curves.

Scores go to the records and nowhere else; `report/` turns them into figures. What was scored before
under the same weights and text is recorded again without being drawn (`score_cache.py`).
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from fastslow.config.models import RunConfig
from fastslow.core.prompts import PromptProgram, best_by_mean
from fastslow.core.seeds import derive_seed
from fastslow.core.types import Example, PromptPolicy, SampleScore
from fastslow.loop.run import Run
from fastslow.loop.stream import Stream
from fastslow.measure.evaluator import mean_score
from fastslow.measure.scores.matrix import headline_policy
from fastslow.policy.policy import seed_program
from fastslow.policy.saved import BASE
from fastslow.records.events import EvaluationEvent, ReoptimizedEvent, ScoreRow
from fastslow.task.definition import Task


@dataclass
class Spent:
    """What a part of the evaluation has cost beside the tuned policy's rollouts."""

    base_draws: int = 0
    """Completions drawn from the base."""
    reused: int = 0
    """Score rows recorded again."""


@contextmanager
def accounted(parts: Run, row: int, part: str) -> Iterator[Spent]:
    """Write down what the evaluation within it cost, and count it as done."""
    started, before = time.monotonic(), parts.policy.engine.num_rollouts
    spent, units = Spent(), parts.ledger.units(part, row)
    if units:
        parts.progress.show(f"evaluation {row}/{len(parts.config.stages)}, {part}", "", 0, {})
    yield spent
    parts.progress.finish(units)
    rollouts = parts.policy.engine.num_rollouts - before + spent.base_draws
    seconds = time.monotonic() - started
    parts.run_dir.events.append(EvaluationEvent(row, rollouts, seconds, part, spent.reused))


def score_all(parts: Run, row: int) -> None:
    """Measure one row of the score matrix, and what else is replayed with it."""
    visits = tuple(stage.task for stage in parts.config.stages)
    scores: dict[str, float] = {}
    with accounted(parts, row, "matrix") as spent:
        done = 0.0
        for task in parts.tasks.values():
            phase = f"evaluation {row}/{len(visits)}, {task.name}"
            parts.progress.show(phase, "", done, {})
            role = headline_policy(visits, row, task.name)
            program = parts.policy.live_program(task)
            scores[task.name] = mean_score(score_cell(parts, spent, task, row, role, program))
            done += parts.ledger.cell(task.name)
            parts.progress.show(phase, "done", done, {"score": scores[task.name]})
        if row == 0:
            _repeat_base(parts)
    parts.tracker.log({f"score/{name}": score for name, score in scores.items()}, step=row)
    if row == 0:
        return
    with accounted(parts, row, "texts") as spent:
        _score_texts(parts, spent, row)
    if parts.config.evaluation.channel_split:
        with accounted(parts, row, "channel_split") as spent:
            _split_channels(parts, spent, row)
    if parts.config.evaluation.reoptimize and row == len(visits):
        with accounted(parts, row, "reoptimize") as spent:
            _reoptimize(parts, spent, row)


def score_cell(
    parts: Run,
    spent: Spent,
    task: Task,
    row: int,
    role: PromptPolicy,
    program: PromptProgram,
    *,
    base: bool = False,
    cycle: int | None = None,
    examples: Sequence[Example] | None = None,
) -> list[SampleScore]:
    """Score and record one cell: what is new is drawn, what is not is recorded again.

    Args:
        parts: The run.
        spent: Counts what is reused and what is drawn from the base.
        task: The column.
        row: The row whose weights these are.
        role: Which text `program` is.
        program: The text.
        base: Whether to score the base in place of the tuned policy.
        cycle: As in `ScoreRow`.
        examples: Of the test sample; None takes all.
    """
    examples = parts.evaluator.test_sample(task) if examples is None else examples
    with parts.policy.adapters.of(task.name):
        weights = BASE if base else parts.policy.weights_fingerprint()
        old = parts.replay.known(weights, program.text_hash, task.name, examples, role)
        missing = [example for example in examples if example.id not in old]
        new = {}
        if missing:
            drawn = parts.evaluator.score(
                parts.policy, task, program, role, examples=missing, adapter=not base
            )
            new = {sample.example: sample for sample in drawn}
    rows = [
        ScoreRow(
            parts.run_dir.path.name,
            row,
            cycle,
            old.get(example.id) or new[example.id],
            reused=example.id in old,
        )
        for example in examples
    ]
    parts.run_dir.scores.append(*rows)
    for one in rows:
        parts.replay.remember(one)
    spent.reused += len(old)
    spent.base_draws += len(missing) if base else 0
    return [one.sample for one in rows]


def score_cycle(parts: Run, task: Task, stage: int, cycle: int) -> None:
    """A point of the stage's learning curve, under the best text so far.

    The end of the stage is the next row of the matrix and needs no point of its own.
    """
    size = parts.config.evaluation.curve_examples
    if not size or cycle + 1 == len(parts.config.phases(stage)):
        return
    with accounted(parts, stage + 1, "curves") as spent:
        examples = parts.evaluator.test_sample(task)[:size]
        program = parts.policy.population(task)[0].program
        score_cell(parts, spent, task, stage + 1, "live", program, cycle=cycle, examples=examples)


def _repeat_base(parts: Run) -> None:
    """Score the base again, as samples 1, 2, ... of every example: the noise floor."""
    for sample in range(1, parts.config.evaluation.base_repeats):
        for task in parts.tasks.values():
            drawn = parts.evaluator.score(parts.policy, task, seed_program(task), "seed")
            again = (replace(score, sample=sample) for score in drawn)
            name = parts.run_dir.path.name
            parts.run_dir.scores.append(*(ScoreRow(name, 0, None, score) for score in again))


def _score_texts(parts: Run, spent: Spent, row: int) -> None:
    """Every visited task under the other texts that are wanted.

    `own` and `live` are one text as long as only a task's own stage chooses its text.
    """
    visited = dict.fromkeys(stage.task for stage in parts.config.stages[:row])
    roles = [role for role in parts.config.evaluation.prompt_policies if role != "live"]
    for name in visited:
        task = parts.tasks[name]
        for role in dict.fromkeys(roles):
            program = seed_program(task) if role == "seed" else parts.policy.live_program(task)
            score_cell(parts, spent, task, row, role, program)


def _split_channels(parts: Run, spent: Spent, row: int) -> None:
    """The other cells of {base, tuned} x {seed, evolved} for the stage's task; at the end `own`."""
    wanted = parts.config.evaluation.prompt_policies
    stages = parts.config.stages
    task = parts.tasks[stages[row - 1].task]
    score_cell(parts, spent, task, 0, "own", parts.policy.live_program(task), base=True)
    if "seed" not in wanted:
        score_cell(parts, spent, task, row, "seed", seed_program(task))
    last = dict.fromkeys(stage.task for stage in stages) if row == len(stages) else {}
    for name in {task.name: None} | last if "own" not in wanted else {}:
        own = parts.policy.live_program(parts.tasks[name])
        score_cell(parts, spent, parts.tasks[name], row, "own", own)


def _reoptimize(parts: Run, spent: Spent, row: int) -> None:
    """What a new text brings back of each earlier task: one fast phase, then a test under it.

    The text is chosen on validation and is not deployed; policy and texts are as before after.
    """
    fast = next((channel for channel in parts.channels if channel.name == "fast"), None)
    last = parts.config.stages[-1].task
    earlier = dict.fromkeys(stage.task for stage in parts.config.stages if stage.task != last)
    for name in earlier if fast is not None else ():
        assert fast is not None
        task, policy = parts.tasks[name], parts.policy
        before = policy.engine.num_rollouts
        kept = policy.populations.get(name)
        seed = derive_seed(parts.config.seed, "reoptimize", name)
        with policy.adapters.of(name):
            anchor = reopt_stream(parts.config, task).anchor(0)
            fast.adapt(policy, task, anchor, seed, lambda *_: None)
            best = best_by_mean(parts.evaluator.validate(policy, task))
        del policy.populations[name]
        if kept is not None:
            policy.populations[name] = kept
        parts.run_dir.events.append(
            ReoptimizedEvent(
                name,
                best.program,
                best.mean,
                len(best.scores),
                policy.engine.num_rollouts - before,
            )
        )
        score_cell(parts, spent, task, row, "reopt", best.program)


def reopt_stream(config: RunConfig, task: Task) -> Stream:
    """One anchor of the task, other than those of its own stage."""
    return Stream(
        task.name,
        task.train,
        seed=config.seed,
        stage=len(config.stages),
        num_cycles=1,
        steps=config.cycle.optimizer_steps,
        problems=config.cycle.problems,
        pool=config.fast.pool if config.fast else 0,
    )
