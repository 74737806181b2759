"""THE loop: stages, cycles, evaluation, resume points (arXiv 2605.12484, Algorithm 1).

`run` is the method, the functions below it its steps; `build.py` makes the parts. A baseline is
a shorter tuple of channels, never another path through this file.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastslow.channels.base import Adaptation, Channel
from fastslow.core.distributed import from_leader
from fastslow.core.errors import (
    ChannelError,
    CheckpointError,
    EngineError,
    EvaluationError,
    StageError,
)
from fastslow.core.prompts import PromptProgram, best_by_mean
from fastslow.core.seeds import derive_seed
from fastslow.core.text import visible
from fastslow.core.types import Anchor
from fastslow.loop.diagnostics import diagnose
from fastslow.loop.evaluation import record_guesses, score_all, score_cycle
from fastslow.loop.run import Run, stage_folder
from fastslow.loop.stream import stage_stream
from fastslow.measure.model.drift import kl_fst
from fastslow.policy.engine.memory import out_of_memory
from fastslow.records.events import CycleEvent, PopulationEvent, RemedyEvent, StepEvent, TextEvent
from fastslow.task.definition import Task
from fastslow.task.guarded_grader import guards

PROGRESS_FIGURES = ("reward", "score", "gold_logprob", "proposals_fit", "reflections")
"""Of a channel's figures, those the progress line shows."""


def run(run: Run) -> None:
    """Take the policy through every stage; after each, score every task and save a resume point.

    Row i of the score matrix is measured after stage i, row 0 before any adaptation, so that
    scores[i][j] is R[i, j] of Lopez-Paz & Ranzato (2017), with one extra row on top.

    Raises:
        StageError: A stage failed; names the stage, task and channel, and the resume point kept.
    """
    config, state = run.config, run.state
    if not state.base_done:
        run.step("score", score_all, row=0)
        run.step("guess", record_guesses)
        run.step("diagnose", diagnose, row=0)
        state.base_done = True
        run.end_cycle()
    run.tracker.row(state.next_stage, is_complete=True)

    for index in range(state.next_stage, len(config.stages)):
        stage = config.stages[index]
        task = run.tasks[stage.task]
        phases = config.phases(index)
        stream = stage_stream(config, task, index, len(phases))
        with run.tracker.stage(index, stage.task), named_failure(run, index):
            if state.next_cycle == 0:
                run.step("start", start_stage, task, index)
            for cycle in range(state.next_cycle, len(phases)):
                anchor = stream.anchor(cycle, state.evidence)  # the problems of the next T batches
                for channel in chosen(phases[cycle], run.channels):  # fast, then slow
                    run.step(channel.name, adapt, channel, task, anchor)
                run.step("curve", score_cycle, task, index, cycle)
                state.next_cycle = cycle + 1
                run.end_cycle()

            run.step("text", choose_text, task, index)
            run.step("settle", settle_stage, task, index)
            run.step("score", score_all, row=index + 1)
            run.step("diagnose", diagnose, row=index + 1)
            run.step("keep", keep_policy, index)
            state.next_stage, state.next_cycle, state.evidence = index + 1, 0, []
            run.end_cycle()
            run.tracker.row(index + 1, is_complete=True)


def adapt(run: Run, channel: Channel, task: Task, anchor: Anchor) -> None:
    """One phase of one channel, written down."""
    seed = derive_seed(run.config.seed, anchor.stage, anchor.cycle, channel.name)
    log = channel_log(run, anchor, channel.name)
    adaptation = channel.adapt(run.policy, task, anchor, seed, log)
    record_adaptation(run, task, anchor, channel.name, adaptation)


def start_stage(run: Run, task: Task, index: int) -> None:
    """Have every channel get the policy ready for the stage; count graders again from 0."""
    for guard in guards(run.tasks.values()):
        guard.counts = (0, 0, 0)
    for channel in run.channels:
        takes_part = channel.name in run.config.channel_names(index)
        channel.begin(run.policy, task, index, takes_part=takes_part)


def settle_stage(run: Run, task: Task, index: int) -> None:
    """Have every channel that took part finish the stage, its text chosen; record its remedies."""
    for channel in chosen(run.config.channel_names(index), run.channels):
        for report in channel.end(run.policy, task, index, Validation(run, index)):
            run.state.rollouts[channel.name] += report.rollouts
            fields = dict(vars(report))
            text = fields.pop("text")
            run.run_dir.events.append(RemedyEvent(index, task.name, **fields))
            if text is not None:
                run.policy.live[task.name] = text
                event = TextEvent(index, task.name, "live", text, None, 0)
                run.run_dir.events.append(event)
    run.progress.finish(sum(run.part_s(part, index + 1) for part in ("shrink", "remedies")))


@dataclass(frozen=True)
class Validation:
    """Scores the policy as it is on validation samples; an `Assessor`."""

    run: Run
    stage: int
    """Index of the stage that ends."""

    def score(self, task: Task, text: PromptProgram | None = None) -> Mapping[str, float]:
        """Score of each example by its id, greedy, under the task's deployed text or another."""
        policy = self.run.policy
        text = text or policy.live_program(task)
        return self.run.evaluator.validation_scores(policy, task, text)

    def kl(self, task: Task) -> float | None:
        """KL(tuned || base) in nats per token, as `kl_fst`; None without `evaluation.kl_examples`.

        Its draws are the same every time it is asked within a stage.
        """
        policy, num_examples = self.run.policy, self.run.config.evaluation.kl_examples
        if not num_examples:
            return None
        inputs = self.run.evaluator.validation_sample(task)[:num_examples]
        seed = derive_seed(self.run.config.seed, "shrink", self.stage)
        return kl_fst(policy, task, policy.live_program(task), inputs, seed).value


def choose_text(run: Run, task: Task, stage: int) -> None:
    """Fix the text to deploy: highest mean on validation, ties to the shorter."""
    if task.name not in run.policy.populations:
        return
    started, before = time.monotonic(), run.policy.sampler.num_rollouts
    best = from_leader(best_by_mean(run.evaluator.validate(run.policy, task)))
    run.policy.live[task.name] = best.program
    rollouts = run.policy.sampler.num_rollouts - before
    run.state.rollouts["fast"] += rollouts
    seconds, size = time.monotonic() - started, len(best.scores)
    run.run_dir.events.append(
        TextEvent(stage, task.name, "live", best.program, best.mean, size, rollouts, seconds)
    )
    run.progress.finish(run.part_s("choice", stage + 1))


def record_adaptation(
    run: Run, task: Task, anchor: Anchor, channel: str, adaptation: Adaptation
) -> None:
    """Write down what a channel did and spent."""
    run.state.rollouts[channel] += adaptation.rollouts
    if channel == "slow" and run.config.fast and run.config.fast.reuse_slow_rollouts:
        run.state.evidence = list(adaptation.evidence)
    metrics = {f"{channel}/{name}": value for name, value in adaptation.metrics.items()}
    place = anchor.stage, anchor.cycle
    rollouts, seconds = {channel: adaptation.rollouts}, {channel: adaptation.seconds}
    tokens = {channel: adaptation.tokens}
    event = CycleEvent(*place, rollouts, seconds, metrics, adaptation.notes, time.time(), tokens)
    run.run_dir.events.append(event)
    if channel == "fast":
        population = run.policy.population(task)
        run.run_dir.events.append(PopulationEvent(*place, task.name, population))
    for note in adaptation.notes:
        run.progress.console.print(f"{channel}: {visible(note)}", markup=False, soft_wrap=True)
    if adaptation.samples:
        run.run_dir.write_samples(anchor.stage, task.name, adaptation.samples, anchor.cycle)
    run.tracker.log(metrics, step=anchor.cycle, time=event.time)
    run.progress.finish(run.part_s(channel, anchor.stage + 1))


def channel_log(
    run: Run, anchor: Anchor, channel: str
) -> Callable[[int, int, Mapping[str, float]], None]:
    """The function a channel calls as it works: progress for people, steps for the records."""
    stage, phase_s = run.config.stages[anchor.stage], run.part_s(channel, anchor.stage + 1)
    where = (
        f"stage {anchor.stage + 1}/{len(run.config.stages)} {stage.task}, "
        f"cycle {anchor.cycle + 1}/{anchor.num_cycles}, {channel}"
    )

    def log(finished: int, total: int, figures: Mapping[str, float]) -> None:
        visible_figures = {name: figures[name] for name in PROGRESS_FIGURES if name in figures}
        run.progress.show(where, f"{finished}/{total}", phase_s * finished / total, visible_figures)
        if channel == "slow":
            step = anchor.cycle * total + finished
            metrics = {f"{channel}/{name}": value for name, value in figures.items()}
            event = StepEvent(anchor.stage, anchor.cycle, step, metrics, time.time())
            run.run_dir.metrics.append(event)
            run.tracker.log(metrics, step=step, time=event.time)
            if finished < total:  # else the phase ends, and with it the step
                run.stop_if_asked()

    return log


def keep_policy(run: Run, stage: int) -> None:
    """Keep adapter and texts as they are after this stage, for use and for going back."""
    folder = stage_folder(run, stage)

    def write(fresh_folder: Path) -> None:
        run.policy.save(fresh_folder)
        if run.policy.populations:
            from fastslow.channels.fast.dspy_programs import save_programs  # imports dspy

            save_programs(run.policy, fresh_folder / "programs")

    run.run_dir.keep_folder(folder, write)
    run.tracker.artifact(folder)
    run.tracker.samples(stage, run.config.stages[stage].task)
    for task, population in run.policy.populations.items():
        run.tracker.prompts(stage, task, population, run.policy.live[task])
    run.publisher.push(stage + 1)


def chosen(names: Sequence[str], channels: Sequence[Channel]) -> list[Channel]:
    """The channels of these names, in the run's order."""
    return [channel for channel in channels if channel.name in names]


@contextlib.contextmanager
def named_failure(run: Run, index: int) -> Iterator[None]:
    """Say which stage failed and how to continue; the last resume point is untouched."""
    try:
        yield
    except (ChannelError, EngineError, EvaluationError, CheckpointError) as err:
        raise stage_error(run, index, str(err)) from err
    except (RuntimeError, MemoryError) as err:
        if (refusal := out_of_memory(err)) is None:
            raise
        advice = "Lower evaluation.kl_examples or the tasks' lengths, or use another device."
        raise stage_error(run, index, f"out of memory: {refusal} {advice}") from err


def stage_error(run: Run, index: int, words: str) -> StageError:
    """The failure of a stage in one line, with the command that continues."""
    stage = run.config.stages[index]
    return StageError(
        f"stage {index + 1}/{len(run.config.stages)} ({stage.task}): {words} The run is kept "
        f"up to its last resume point; continue with: fastslow resume {run.run_dir.path}"
    )
