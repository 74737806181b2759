"""The evaluation of a run: rows of the score matrix, the 2x2 of both channels, learning curves."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from fastslow.core.prompts import PromptProgram, best_by_mean
from fastslow.core.seeds import derive_seed
from fastslow.core.types import ArmName, Example, PromptPolicy, SampleScore
from fastslow.loop.run import Run
from fastslow.loop.stream import stage_stream
from fastslow.measure.evaluator import mean_score
from fastslow.measure.scores.guessing import answer_spread, bare, collapse_sentence, guess
from fastslow.measure.scores.matrix import headline_policy
from fastslow.policy.policy import seed_program
from fastslow.policy.saved import BASE
from fastslow.records.events import EvaluationEvent, GuessEvent, ReoptimizedEvent, ScoreRow
from fastslow.task.definition import Task
from fastslow.task.guarded_grader import grade_all
from fastslow.task.splits import content_id


@dataclass
class EvaluationCost:
    """The cost of a part of the evaluation other than the tuned policy's rollouts."""

    base_draws: int = 0
    """Completions drawn from the base."""
    reused: int = 0
    """Score rows recorded again."""


@contextmanager
def accounted(run: Run, row: int, part: str) -> Iterator[EvaluationCost]:
    """Write down what the evaluation within it cost, and count it as done."""
    started, before = time.monotonic(), run.policy.sampler.num_rollouts
    cost, part_s = EvaluationCost(), run.part_s(part, row)
    if part_s:
        run.progress.show(f"evaluation {row}/{len(run.config.stages)}, {part}", "", 0, {})
    yield cost
    run.progress.finish(part_s)
    rollouts = run.policy.sampler.num_rollouts - before + cost.base_draws
    seconds = time.monotonic() - started
    run.run_dir.events.append(
        EvaluationEvent(row, rollouts, seconds, part, cost.reused, time.time())
    )


def score_all(run: Run, row: int) -> None:
    """Measure one row of the score matrix, and what else is replayed with it."""
    visits = tuple(stage.task for stage in run.config.stages)
    with accounted(run, row, "matrix") as cost:
        num_scored, ledger = 0, run.price.ledger
        completion_s = run.part_s("matrix", row) / max(1, ledger.entry("matrix", row).rollouts)
        for task in run.tasks.values():
            phase = f"evaluation {row}/{len(visits)}, {task.name}"
            run.progress.show(phase, "", num_scored * completion_s, {})
            role = headline_policy(visits, row, task.name)
            program = run.policy.live_program(task)
            samples = score_cell(run, cost, task, row, role, program)
            num_scored += ledger.cell(task.name)
            figures = {"score": mean_score(samples)}
            run.progress.show(phase, "done", num_scored * completion_s, figures)
            if task.name in visits[:row]:
                _warn_of_collapse(run, task, row, samples)
        if row == 0:
            _repeat_base(run)
    run.tracker.row(row)
    if row == 0:
        return
    with accounted(run, row, "texts") as cost:
        _score_texts(run, cost, row)
    if run.config.evaluation.channel_split:
        with accounted(run, row, "channel_split") as cost:
            _split_channels(run, cost, row)
    if run.config.evaluation.reoptimize and row == len(visits):
        with accounted(run, row, "reoptimize") as cost:
            _reoptimize(run, cost, row)


def score_cell(
    run: Run,
    cost: EvaluationCost,
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

    The weights are those of `row`, or with `base` the untouched ones; the examples are those of the
    test sample, unless some are given. `cost` counts what is reused and what the base draws.
    """
    examples = run.evaluator.test_sample(task) if examples is None else examples
    with run.policy.adapters.serving(task.name):
        weights = BASE if base else run.policy.weights_fingerprint()
        old = run.score_cache.look_up(weights, program.text_hash, task.name, examples, role)
        missing = [example for example in examples if example.id not in old]
        new_samples = []
        if missing:
            new_samples = run.evaluator.score(
                run.policy, task, program, role, examples=missing, adapter=not base
            )
    samples = old | {sample.example: sample for sample in new_samples}
    rows = [
        replace(_score_row(run, row, samples[e.id], e), cycle=cycle, reused=e.id in old)
        for e in examples
    ]
    run.run_dir.scores.append(*rows)
    for score_row in rows:
        run.score_cache.add(score_row)
    cost.reused += len(old)
    cost.base_draws += len(missing) if base else 0
    return [score_row.sample for score_row in rows]


def arm_scores(
    run: Run, cost: EvaluationCost, row: int, task: Task, arm: ArmName
) -> dict[str, float]:
    """Score of each test example by its id, under one arm; recorded only where some are drawn."""
    program = seed_program(task) if arm == "seed" else run.policy.live_program(task)
    examples = run.evaluator.test_sample(task)
    with run.policy.adapters.serving(task.name):
        weights = BASE if arm == "base" else run.policy.weights_fingerprint()
    samples = run.score_cache.look_up(weights, program.text_hash, task.name, examples, "live")
    if len(samples) == len(examples):
        return {example: sample.score for example, sample in samples.items()}
    if arm == "base":
        cell = score_cell(run, cost, task, 0, "own", program, base=True)
    else:
        cell = score_cell(run, cost, task, row, arm, program)
    return {sample.example: sample.score for sample in cell}


def _score_row(run: Run, row: int, sample: SampleScore, example: Example) -> ScoreRow:
    """A line of scores.jsonl at the end of a stage, with what it was graded by."""
    name, gold = run.run_dir.path.name, content_id(example.answer)
    return ScoreRow(name, row, None, sample, gold=gold, cluster=example.cluster)


def score_cycle(run: Run, task: Task, stage: int, cycle: int) -> None:
    """A point of the stage's learning curve, under the best text so far.

    The end of the stage is the next row of the matrix and needs no point of its own.
    """
    size = run.config.evaluation.curve_examples
    if not size or cycle + 1 == len(run.config.phases(stage)):
        return
    with accounted(run, stage + 1, "curves") as cost:
        examples = run.evaluator.test_sample(task)[:size]
        program = run.policy.population(task)[0].program
        score_cell(run, cost, task, stage + 1, "live", program, cycle=cycle, examples=examples)


def record_guesses(run: Run) -> None:
    """Grade what guessing scores on every task's test sample, once in a run, and record it."""
    for task in run.tasks.values():

        def score_all(answers: Sequence[tuple[Example, str]], task: Task = task) -> list[float]:
            return [grade.score for grade in grade_all(task.grade, answers)]

        chance = guess(task.train, run.evaluator.test_sample(task), score_all)
        run.run_dir.events.append(GuessEvent(task.name, chance))


def _warn_of_collapse(run: Run, task: Task, row: int, samples: Sequence[SampleScore]) -> None:
    """Say on the terminal that nearly all answers are one although the gold answers are not."""
    spread = answer_spread((sample.completion, sample.score) for sample in samples)
    num_gold = len({bare(example.answer) for example in run.evaluator.test_sample(task)})
    if spread.is_collapsed(num_gold):
        sentence = collapse_sentence(task.name, spread, row, None)
        run.progress.console.print(f"warning: {sentence}", markup=False, soft_wrap=True)


def _repeat_base(run: Run) -> None:
    """Score the base again, as samples 1, 2, ... of every example: the noise floor."""
    for sample in range(1, run.config.evaluation.base_repeats):
        for task in run.tasks.values():
            samples = run.evaluator.score(run.policy, task, seed_program(task), "seed")
            examples = run.evaluator.test_sample(task)
            repeats = (replace(score, sample=sample) for score in samples)
            rows = [_score_row(run, 0, s, e) for s, e in zip(repeats, examples, strict=True)]
            run.run_dir.scores.append(*rows)


def _score_texts(run: Run, cost: EvaluationCost, row: int) -> None:
    """Every visited task under the other texts that are wanted.

    `own` and `live` are one text as long as only a task's own stage chooses its text.
    """
    visited = dict.fromkeys(stage.task for stage in run.config.stages[:row])
    roles = [role for role in run.config.evaluation.prompt_policies if role != "live"]
    for name in visited:
        task = run.tasks[name]
        for role in dict.fromkeys(roles):
            program = seed_program(task) if role == "seed" else run.policy.live_program(task)
            score_cell(run, cost, task, row, role, program)


def _split_channels(run: Run, cost: EvaluationCost, row: int) -> None:
    """The other cells of {base, tuned} x {seed, evolved} for the stage's task; at the end `own`."""
    prompt_policies = run.config.evaluation.prompt_policies
    stages = run.config.stages
    task = run.tasks[stages[row - 1].task]
    score_cell(run, cost, task, 0, "own", run.policy.live_program(task), base=True)
    if "seed" not in prompt_policies:
        score_cell(run, cost, task, row, "seed", seed_program(task))
    last = dict.fromkeys(stage.task for stage in stages) if row == len(stages) else {}
    for name in {task.name: None} | last if "own" not in prompt_policies else {}:
        program = run.policy.live_program(run.tasks[name])
        score_cell(run, cost, run.tasks[name], row, "own", program)


def _reoptimize(run: Run, cost: EvaluationCost, row: int) -> None:
    """What a new text brings back of each earlier task: one fast phase, then a test under it.

    The text is chosen on validation and is not deployed; policy and texts are as before after.
    """
    fast = next((channel for channel in run.channels if channel.name == "fast"), None)
    last = run.config.stages[-1].task
    earlier = dict.fromkeys(stage.task for stage in run.config.stages if stage.task != last)
    if fast is None:
        return
    for name in earlier:
        task, policy = run.tasks[name], run.policy
        before = policy.sampler.num_rollouts
        population = policy.populations.get(name)
        seed = derive_seed(run.config.seed, "reoptimize", name)
        with policy.adapters.serving(name):
            # an anchor other than those of the task's own stage
            anchor = stage_stream(run.config, task, len(run.config.stages), 1).anchor(0)
            fast.adapt(policy, task, anchor, seed, lambda *_: None)
            best = best_by_mean(run.evaluator.validate(policy, task))
        del policy.populations[name]
        if population is not None:
            policy.populations[name] = population
        rollouts = policy.sampler.num_rollouts - before
        run.run_dir.events.append(
            ReoptimizedEvent(name, best.program, best.mean, len(best.scores), rollouts)
        )
        score_cell(run, cost, task, row, "reopt", best.program)
