"""A run: everything the loop and its steps work on, and the resume points it makes."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec

from fastslow.channels.base import Channel
from fastslow.config.models import RunConfig
from fastslow.config.price import Price
from fastslow.core.distributed import is_leader
from fastslow.core.progress import Progress
from fastslow.core.seeds import save_generators
from fastslow.core.types import TokenIds
from fastslow.loop.score_cache import ScoreCache
from fastslow.loop.signals import Stopped, StopRequest
from fastslow.measure.base import Measure
from fastslow.measure.evaluator import Evaluator
from fastslow.policy.engine.memory import return_memory
from fastslow.policy.policy import Policy
from fastslow.records.events import BaseDrawsEvent, GraderEvent
from fastslow.records.jsonl import read_events, read_scores
from fastslow.records.new_folder import stage_path
from fastslow.records.publishing import Publisher
from fastslow.records.run_folder import RunDir
from fastslow.records.state import RunState
from fastslow.records.tracking.live import Tracking
from fastslow.task.definition import Task
from fastslow.task.guarded_grader import guards

P = ParamSpec("P")


@dataclass
class Run:
    """A run with all its parts built; `run` takes it through every stage."""

    config: RunConfig
    tasks: Mapping[str, Task]
    """Every task of the run, in the order of the matrix; all are scored after every stage."""
    policy: Policy
    """Changed in place by the channels."""
    channels: Sequence[Channel]
    """In the order they run within a cycle; the fast channel comes first."""
    tracker: Tracking
    """Receives metrics as they are made; never decides anything."""
    run_dir: RunDir
    """Where records and resume points go."""
    progress: Progress
    """In estimated seconds."""
    price: Price
    """What each part of the run counts for in the progress line."""
    state: RunState
    """How far the run is; saved with every resume point."""
    measures: Mapping[str, Measure]
    """In addition to those switched on and off, by the name they are reported under."""
    stop: StopRequest
    """Whether a signal asked the run to stop."""

    def __post_init__(self) -> None:
        evaluation = self.config.evaluation
        self.evaluator = Evaluator(
            evaluation.test_examples, evaluation.validation_examples, evaluation.split
        )
        """Must leave `policy` bit-identical."""
        self.publisher = Publisher(self.config, self.run_dir.path, is_leader())
        self._clock = time.monotonic() - self.state.seconds
        for guard in guards(self.tasks.values()):
            guard.counts = self.state.grading.get(guard.task, (0, 0, 0))
        self.score_cache = ScoreCache(read_scores(self.run_dir.scores.path))
        """What was scored already, before a crash too."""
        events = read_events(self.run_dir.events.path)
        self.base_draws: dict[tuple[str, str], tuple[TokenIds, ...]] = {
            (event.task, event.text_hash): event.completions
            for event in events
            if isinstance(event, BaseDrawsEvent)
        }
        """What the base drew for drift, by task and text; it never changes."""
        self.neutral_base: list[tuple[float, ...]] | None = None
        """The base on neutral prose, once it was measured in this process."""

    def step(
        self,
        name: str,
        work: Callable[Concatenate["Run", P], None],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Do a step of the present cycle, or pass over one done before the run was stopped.

        Raises:
            Stopped: A signal asked for it; a resume point was saved after the step.
        """
        if name not in self.state.done:
            try:
                work(self, *args, **kwargs)
            finally:  # DSPy makes other things of what a grader says in its threads
                self._settle_graders(name)
                return_memory()
            self.state.done.append(name)
            self.stop_if_asked()

    def _settle_graders(self, step: str) -> None:
        """Record what graders could not grade in a step, and the end of what they printed.

        Raises:
            EvaluationError: It is too much.
        """
        stage, cycle = self.state.next_stage, self.state.next_cycle
        for guard in guards(self.tasks.values()):
            failures, printed = guard.report(), guard.take_printed()
            if failures or printed:
                last = guard.last if failures else ""
                counts = failures, guard.graded
                self.run_dir.events.append(
                    GraderEvent(stage, cycle, step, guard.task, *counts, last, printed)
                )
            guard.require_few_failures()

    def part_s(self, part: str, row: int) -> float:
        """Estimated seconds of a part of the ledger, once, on the way to that row."""
        return self.price.seconds(self.price.ledger.entry(part, row))

    def stop_if_asked(self) -> None:
        """Count what has been done as done, and end here with a resume point if that is wanted.

        Raises:
            Stopped: A signal asked for it.
        """
        self.state.progress += 1
        if number := self.stop.requested():
            self.save()
            raise Stopped(number)

    def end_cycle(self) -> None:
        """End a cycle, a stage or the first evaluation with a resume point.

        Raises:
            Stopped: A signal asked for it.
        """
        self.state.done, self.state.progress = [], 0
        self.save()
        self.stop.obey()

    def save(self) -> None:
        """Make a resume point: policy, channels, random states and position."""
        started = time.monotonic()
        self.state.seconds = started - self._clock
        self.state.grading = {guard.task: guard.counts for guard in guards(self.tasks.values())}

        def write(folder: Path) -> None:
            self.policy.save(folder / "policy")
            for channel in self.channels:
                (folder / channel.name).mkdir()
                channel.save(folder / channel.name)
            save_generators(folder)

        self.run_dir.save_state(self.state, write)
        self.state.saving_seconds += time.monotonic() - started


def stage_folder(run: Run, stage: int) -> Path:
    """Where adapter and texts are kept as they are after the stage with this index."""
    return run.run_dir.path / stage_path(stage, run.config.stages[stage].task)
