"""The parts of a run and the resume point they make; the loop and its steps work on them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastslow.channels.base import Channel
from fastslow.config.models import RunConfig
from fastslow.effort import Effort
from fastslow.measure.evaluator import Evaluator
from fastslow.policy.policy import Policy
from fastslow.progress import Progress
from fastslow.records import BaseDrawsEvent, read_events, read_scores
from fastslow.replay import Replay
from fastslow.rundir import RunDir, RunState
from fastslow.task import Task
from fastslow.tracking import Tracker
from fastslow.types import TokenIds


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
    evaluator: Evaluator
    """Must leave `policy` bit-identical."""
    tracker: Tracker
    """Receives metrics as they are made; never decides anything."""
    run_dir: RunDir
    """Where records and resume points go."""
    progress: Progress
    state: RunState
    """How far the run is; saved with every resume point."""

    def __post_init__(self) -> None:
        self.effort = Effort(self.config, self.tasks)
        """What each part of the run counts for in the progress line."""
        self._clock = time.monotonic() - self.state.seconds
        self.replay = Replay(read_scores(self.run_dir.scores.path))
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

    def save(self) -> Path:
        """Make a resume point: policy, channels and position."""
        self.state.seconds = time.monotonic() - self._clock

        def write_parts(folder: Path) -> None:
            self.policy.save(folder / "policy")
            for channel in self.channels:
                (folder / channel.name).mkdir()
                channel.save(folder / channel.name)

        return self.run_dir.save_state(self.state, write_parts)


def stage_folder(parts: Run, stage: int) -> Path:
    """Where adapter and texts are kept as they are after the stage with this index."""
    return parts.run_dir.path / "stages" / f"{stage:03d}-{parts.config.stages[stage].task}"
