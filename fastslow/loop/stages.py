"""THE loop: stages, cycles, evaluation, resume points (arXiv 2605.12484, Algorithm 1).

`run` is the method, the functions below it its steps; `build.py` makes the parts. A baseline is
a shorter tuple of channels, never another path through this file.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from fastslow.channels.base import Adaptation, Channel
from fastslow.channels.slow.minimal import shrink
from fastslow.config.models import RunConfig
from fastslow.core.distributed import from_leader
from fastslow.core.errors import ChannelError, CheckpointError, EvaluationError, StageError
from fastslow.core.prompts import best_by_mean
from fastslow.core.seeds import derive_seed
from fastslow.core.text import visible
from fastslow.core.types import Anchor
from fastslow.loop.diagnostics import diagnose
from fastslow.loop.evaluation import score_all, score_cycle
from fastslow.loop.run import Run, stage_folder
from fastslow.loop.stream import Stream
from fastslow.measure.evaluator import Evaluator
from fastslow.measure.model.drift import kl_fst
from fastslow.policy.engine.memory import out_of_memory
from fastslow.policy.policy import Policy
from fastslow.records.events import CycleEvent, PopulationEvent, ShrinkEvent, StepEvent, TextEvent
from fastslow.task.definition import Task
from fastslow.task.guarded_grader import guards


def shrink_stage(
    policy: Policy,
    evaluator: Evaluator,
    task: Task,
    stage: int,
    *,
    share: float,
    earlier: Sequence[Task],
    kl_examples: int,
    seed: int,
) -> ShrinkEvent:
    """Scale the adapter of the stage that just ended; see `channels.minimal.shrink`.

    Args:
        policy: Its adapter is scaled in place.
        evaluator: Gives the validation sample and its scores.
        task: The stage's task, scored under its deployed text.
        stage: Index of the stage, from 0.
        share: Of the stage's validation gain that is to be kept, in (0, 1].
        earlier: Tasks that lose something too when the adapter is scaled; scored for the record.
        kl_examples: Validation inputs on which KL to the base is measured; 0 turns it off.
        seed: Of the draws for it, the same before and after.
    """
    started, before = time.monotonic(), policy.engine.num_rollouts
    program = policy.live_program(task)
    inputs = evaluator.validation_sample(task)[:kl_examples]

    def score(of: Task) -> float:
        return fmean(evaluator.validation_scores(policy, of, policy.live_program(of)).values())

    def observe() -> dict[str, float]:
        drift = {"kl_fst": kl_fst(policy, task, program, inputs, seed).value} if inputs else {}
        return drift | {f"score/{other.name}": score(other) for other in earlier}

    found = shrink(policy, share, lambda: score(task), observe)
    names = {other.name: f"score/{other.name}" for other in earlier}
    return ShrinkEvent(
        stage=stage,
        task=task.name,
        share=share,
        factor=found.factor,
        reason=found.reason,
        validation_start=found.start,
        validation_before=found.before,
        validation_after=found.after,
        validation_n=len(evaluator.validation_sample(task)),
        kl_before=found.observed_before.get("kl_fst"),
        kl_after=found.observed_after.get("kl_fst"),
        earlier_before={name: found.observed_before[key] for name, key in names.items()},
        earlier_after={name: found.observed_after[key] for name, key in names.items()},
        rollouts=policy.engine.num_rollouts - before,
        seconds=time.monotonic() - started,
    )


PROGRESS_FIGURES = ("reward", "score", "gold_logprob", "proposals_fit")
"""Of a channel's figures, those the progress line shows."""


def run(parts: Run) -> None:
    """Take the policy through every stage; after each, score every task and save a resume point.

    Row i of the score matrix is measured after stage i, row 0 before any adaptation, so that
    scores[i][j] is R[i, j] of Lopez-Paz & Ranzato (2017), with one extra row on top.

    Raises:
        StageError: A stage failed; names the stage, task and channel, and the resume point kept.
    """
    config, state = parts.config, parts.state
    if not state.base_done:
        parts.step("score", score_all, row=0)
        parts.step("diagnose", diagnose, row=0)
        state.base_done = True
        parts.end_cycle()

    for index in range(state.next_stage, len(config.stages)):
        stage = config.stages[index]
        task = parts.tasks[stage.task]
        stream = stage_stream(config, index, task)
        with parts.tracker.stage(index, stage.task), named_failure(parts, index):
            if state.next_cycle == 0:
                parts.step("start", start_stage, index)
            phases = config.phases(index)
            for cycle in range(state.next_cycle, len(phases)):
                anchor = stream.anchor(cycle, state.evidence)  # the problems of the next T batches
                for channel in chosen(phases[cycle], parts.channels):  # fast, then slow
                    parts.step(channel.name, adapt, channel, task, anchor)
                parts.step("curve", score_cycle, task, index, cycle)
                state.next_cycle = cycle + 1
                parts.end_cycle()

            parts.step("text", choose_text, task, index)
            parts.step("shrink", shrink_adapter, task, index)
            parts.step("score", score_all, row=index + 1)
            parts.step("diagnose", diagnose, row=index + 1)
            parts.step("keep", keep_policy, index)
            state.next_stage, state.next_cycle, state.evidence = index + 1, 0, []
            parts.end_cycle()


def adapt(parts: Run, channel: Channel, task: Task, anchor: Anchor) -> None:
    """One phase of one channel, written down."""
    seed = derive_seed(parts.config.seed, anchor.stage, anchor.cycle, channel.name)
    log = channel_log(parts, anchor, channel.name)
    adaptation = channel.adapt(parts.policy, task, anchor, seed, log)
    record_adaptation(parts, task, anchor, channel.name, adaptation)


def start_stage(parts: Run, index: int) -> None:
    """Get the adapter ready for the stage, as `slow.adapter_policy` has it; count graders anew."""
    for guard in guards(parts.tasks.values()):
        guard.counts = (0, 0, 0)
    stage, slow = parts.config.stages[index], parts.config.slow
    if slow is not None:
        parts.policy.adapters.begin(
            stage.task,
            slow.adapter_policy,
            derive_seed(parts.config.seed, "adapter", index),
            trains=stage.slow,
            keep_start=slow.shrink is not None or slow.kl_budget is not None,
        )


def shrink_adapter(parts: Run, task: Task, index: int) -> None:
    """Scale the adapter down as far as the stage's validation gain allows, if that is wanted."""
    config, slow = parts.config, parts.config.slow
    if slow is None or slow.shrink is None or not config.stages[index].slow:
        parts.policy.adapters.start = None  # of no use once the stage has ended
        return
    names = dict.fromkeys(stage.task for stage in config.stages[:index] if stage.slow)
    is_whole = slow.adapter_policy == "continue"  # else it is this stage's own change alone
    event = shrink_stage(
        parts.policy,
        parts.evaluator,
        task,
        index,
        share=slow.shrink,
        earlier=[parts.tasks[name] for name in names if is_whole and name != task.name],
        kl_examples=config.evaluation.kl_examples,
        seed=derive_seed(config.seed, "shrink", index),
    )
    parts.state.rollouts["slow"] += event.rollouts
    parts.run_dir.events.append(event)


def choose_text(parts: Run, task: Task, stage: int) -> None:
    """Fix the text to deploy: highest mean on validation, ties to the shorter."""
    if task.name not in parts.policy.populations:
        return
    started, before = time.monotonic(), parts.policy.engine.num_rollouts
    best = from_leader(best_by_mean(parts.evaluator.validate(parts.policy, task)))
    parts.policy.live[task.name] = best.program
    rollouts = parts.policy.engine.num_rollouts - before
    parts.state.rollouts["fast"] += rollouts
    parts.run_dir.events.append(
        TextEvent(
            stage,
            task.name,
            "live",
            best.program,
            best.mean,
            len(best.scores),
            rollouts,
            time.monotonic() - started,
        )
    )


def record_adaptation(
    parts: Run, task: Task, anchor: Anchor, channel: str, adaptation: Adaptation
) -> None:
    """Write down what a channel did and spent."""
    parts.state.rollouts[channel] += adaptation.rollouts
    if channel == "slow" and parts.config.fast and parts.config.fast.reuse_slow_rollouts:
        parts.state.evidence = list(adaptation.evidence)
    metrics = {f"{channel}/{name}": value for name, value in adaptation.metrics.items()}
    parts.run_dir.events.append(
        CycleEvent(
            anchor.stage,
            anchor.cycle,
            {channel: adaptation.rollouts},
            {channel: adaptation.seconds},
            metrics,
            adaptation.notes,
        )
    )
    if channel == "fast":
        population = parts.policy.population(task)
        parts.run_dir.events.append(
            PopulationEvent(anchor.stage, anchor.cycle, task.name, population)
        )
    for note in adaptation.notes:
        parts.progress.console.print(f"{channel}: {visible(note)}", markup=False, soft_wrap=True)
    if adaptation.samples:
        parts.run_dir.write_samples(anchor.stage, task.name, adaptation.samples, anchor.cycle)
    parts.tracker.log(metrics, step=anchor.cycle)
    parts.progress.finish(parts.ledger.units(channel))


def channel_log(
    parts: Run, anchor: Anchor, channel: str
) -> Callable[[int, int, Mapping[str, float]], None]:
    """The function a channel calls as it works: progress for people, steps for the records."""
    stage = parts.config.stages[anchor.stage]
    where = (
        f"stage {anchor.stage + 1}/{len(parts.config.stages)} {stage.task}, "
        f"cycle {anchor.cycle + 1}/{anchor.num_cycles}, {channel}"
    )

    def log(done: int, total: int, figures: Mapping[str, float]) -> None:
        shown = {name: figures[name] for name in PROGRESS_FIGURES if name in figures}
        units = parts.ledger.units(channel) * done / total
        parts.progress.show(where, f"{done}/{total}", units, shown)
        if channel == "slow":
            step = anchor.cycle * total + done
            metrics = {f"{channel}/{name}": value for name, value in figures.items()}
            parts.run_dir.metrics.append(StepEvent(anchor.stage, anchor.cycle, step, metrics))
            parts.tracker.log(metrics, step=step)
            if done < total:  # else the phase ends, and with it the step
                parts.stop_if_asked()

    return log


def keep_policy(parts: Run, stage: int) -> None:
    """Keep adapter and texts as they are after this stage, for use and for going back."""
    folder = stage_folder(parts, stage)

    def write(beside: Path) -> None:
        parts.policy.save(beside)
        if parts.policy.populations:
            from fastslow.channels.fast.dspy_programs import save_programs  # imports dspy

            save_programs(parts.policy, beside / "programs")

    parts.run_dir.keep_folder(folder, write)
    parts.tracker.artifact(folder)
    for task, population in parts.policy.populations.items():
        parts.tracker.prompts(stage, task, population, parts.policy.live[task])


def stage_stream(config: RunConfig, index: int, task: Task) -> Stream:
    """The order in which stage `index` meets the task's training examples."""
    return Stream(
        task.name,
        task.train,
        seed=config.seed,
        stage=index,
        num_cycles=len(config.phases(index)),
        steps=config.cycle.optimizer_steps,
        problems=config.cycle.problems,
        pool=config.fast.pool if config.fast else 0,
    )


def chosen(names: Sequence[str], channels: Sequence[Channel]) -> list[Channel]:
    """The channels of these names, in the run's order."""
    return [channel for channel in channels if channel.name in names]


@contextlib.contextmanager
def named_failure(parts: Run, index: int) -> Iterator[None]:
    """Say which stage failed and how to go on; the last resume point is untouched."""
    try:
        yield
    except (ChannelError, EvaluationError, CheckpointError) as err:
        raise stage_error(parts, index, str(err)) from err
    except (RuntimeError, MemoryError) as err:
        if (said := out_of_memory(err)) is None:
            raise
        advice = "Lower evaluation.kl_examples or the tasks' lengths, or use another device."
        raise stage_error(parts, index, f"out of memory: {said} {advice}") from err


def stage_error(parts: Run, index: int, words: str) -> StageError:
    """The failure of a stage in one line, with the command that goes on."""
    stage = parts.config.stages[index]
    return StageError(
        f"stage {index + 1}/{len(parts.config.stages)} ({stage.task}): {words} The run is kept "
        f"up to its last resume point; go on with: fastslow resume {parts.run_dir.path}"
    )
