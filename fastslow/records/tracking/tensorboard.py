"""The tracker TensorBoard: event files in one folder per run, metrics and prompts.

Every part of a run writes a file of its own, flushed after each call; what earlier files hold is
not written again. The only module that imports tensorboard.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastslow.core.prompts import PromptProgram
from fastslow.core.text import visible
from fastslow.core.tracker import Status, TrackedRun
from fastslow.policy.render import chat_messages
from fastslow.records.tracking.points import Points, SeriesTracker, may_repeat


class TensorboardTracker(SeriesTracker):
    """Tracks in event files under `folder`: `tensorboard --logdir FOLDER` shows all its runs."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._writer: Any = None
        self._texts: set[tuple[str, int]] = set()
        """Name and step of every text that is there."""

    def begin(self, run: TrackedRun) -> None:
        """Read what the run's folder holds, and open a file for what is new."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        from torch.utils.tensorboard import SummaryWriter

        place = self._folder / run.name
        place.mkdir(parents=True, exist_ok=True)
        files = EventAccumulator(str(place), {"scalars": 0, "tensors": 0}).Reload()
        names = files.Tags()
        self._points = Points(
            (name, point.step, point.value)
            for name in names["scalars"]
            for point in files.Scalars(name)
            if may_repeat(name, point.wall_time, run.since)
        )
        self._texts = {
            (name.removesuffix("/text_summary"), text.step)
            for name in names["tensors"]
            for text in files.Tensors(name)
        }
        self._writer = SummaryWriter(str(place))
        self._text("config", json.dumps(run.config, indent=2), 0)

    def rounded(self, value: float) -> float:
        """A value in 32 bits."""
        return float(np.float32(value))

    def write(self, points: Mapping[str, float], step: int, time: float) -> None:
        """Write points to the file of this part of the run."""
        for name, value in points.items():
            self._writer.add_scalar(name, value, step, walltime=time)
        self._writer.flush()

    def prompts(
        self, stage: int, task: str, prompts: Sequence[PromptProgram], live: PromptProgram
    ) -> None:
        """Write the prompt that a task is deployed with, at the number of the stage, from 1."""
        self._text(f"prompt/{task}", json.dumps(chat_messages(live, "")[:-1], indent=2), stage + 1)

    def end(self, status: Status) -> None:
        """Close the file."""
        self._writer.close()

    def _text(self, name: str, text: str, step: int) -> None:
        """Write a text as a block of code, so that nothing in it is markup."""
        if (name, step) not in self._texts:
            block = "\n".join(f"    {visible(line)}" for line in text.split("\n"))
            self._writer.add_text(name, block, step)
            self._writer.flush()
            self._texts.add((name, step))
