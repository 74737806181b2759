"""A run's trackers as the loop sees them: told live, survived when they fail, told the rest later.

`tracker.json` in the run folder keeps the identity by which every tracker finds the run again, and
which of them missed anything. The next resume sends that from the records, and so does
`fastslow track`.
"""

import contextlib
import json
import logging
import math
import time as clock
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastslow.core.credentials import without_keys
from fastslow.core.errors import FastSlowError, TrackerError
from fastslow.core.files import write_file
from fastslow.core.prompts import Population, PromptProgram
from fastslow.core.text import shorten
from fastslow.core.tracker import Status, TrackedRun, Tracker
from fastslow.core.types import Example
from fastslow.records.events import StepEvent
from fastslow.records.tracking.data import data_splits
from fastslow.records.tracking.records import (
    REPORT_FILES,
    RecordsReader,
    RunRecords,
    read_run_records,
)

_LOG = logging.getLogger(__name__)
IDENTITY_FILE = "tracker.json"
SLOW_S = 0.5
"""A call that fails after so long holds the run up."""
REST_S = 30.0
"""A tracker whose call did is left alone for so long."""


class GuardedTracker:
    """A tracker; whatever it raises ends here, is counted, and holds nobody else up."""

    def __init__(
        self, name: str, tracker: Tracker, run: TrackedRun, has_missed: bool = False
    ) -> None:
        """`has_missed` says that an earlier part of the run had failures."""
        self.name, self.run, self.has_missed = name, run, has_missed
        self.num_failures = 0
        """Calls that failed, or were left out while the tracker was left alone."""
        self.first_failure = ""
        self.buffers = tracker.buffers
        self._tracker = tracker
        self._rests_until = -math.inf

    def call(self, method: str, *values: Any) -> None:
        """Call a method of the tracker; a failure that took long gives it a rest."""
        started = clock.monotonic()
        if started < self._rests_until:
            self.num_failures += 1
            return
        try:
            getattr(self._tracker, method)(*values)
        except Exception as error:  # a tracker's own code may raise anything
            ended = clock.monotonic()
            if ended - started > SLOW_S:
                self._rests_until = ended + REST_S
            self.num_failures += 1
            if self.num_failures > 1:
                return
            words = without_keys(str(error).partition("\n")[0])
            self.first_failure = f"{type(error).__name__}: {shorten(words, 200)}"
            self.has_missed = True
            _LOG.warning(
                "tracking: a call of %s failed, got %s. The run continues and its records are in "
                "the run folder; further failures are only counted.",
                self.name,
                self.first_failure,
            )


class Tracking:
    """Hands on to a run's trackers what it produces; they fail and recover each on its own.

    `tracker.json` in the run folder names those that missed something. What an earlier part of the
    run could not hand on is sent first, to them alone.
    """

    def __init__(self, trackers: Sequence[GuardedTracker], folder: Path) -> None:
        self.trackers = trackers
        self._folder = folder
        self._audience = trackers
        self._stage: int | None = None
        self._reader = RecordsReader(folder)
        self._rows: set[tuple[int, str]] = set()
        """Rows and names that were handed on as the run went on."""

    @property
    def num_failures(self) -> int:
        """Calls that failed, of all trackers together."""
        return sum(tracker.num_failures for tracker in self.trackers)

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """The whole run, or the part that a resume makes; everything else happens inside."""
        self._begin()
        late = [t for t in self.trackers if t.has_missed and not t.num_failures]
        if late:
            self._audience = late
            self._send(read_run_records(self._folder))
            self._audience = self.trackers
            self._settle(late)
        buffered = [t for t in self.trackers if t.buffers]
        for tracker in buffered:
            tracker.has_missed = True  # until it has ended
        if buffered:
            save_identity(self.trackers)
        with self._ending("end"):
            yield
        self._settle(buffered)
        for tracker in self.trackers:
            if tracker.num_failures:
                _LOG.warning(
                    "tracking: %d calls of %s failed. To send what was missed: fastslow track %s",
                    tracker.num_failures,
                    tracker.name,
                    self._folder,
                )

    @contextlib.contextmanager
    def stage(self, index: int, task: str) -> Iterator[None]:
        """One stage, index from 0; what is logged inside belongs to it."""
        self._stage = index
        self._tell("begin_stage", index, task)
        try:
            with self._ending("end_stage", index):
                yield
        finally:
            self._stage = None

    def log(
        self, metrics: Mapping[str, float | None], step: int, time: float | None = None
    ) -> None:
        """Keep the finite values of `metrics` in the present stage. No time is now."""
        self._log(metrics, step, time, self._stage)

    def row(self, row: int, is_complete: bool = False) -> None:
        """Hand on what the records have of a row of the matrix by now."""
        if self.trackers:
            with self._records_of_run():
                for metrics, time in self._reader.read().row(row, is_complete):
                    new = {name: v for name, v in metrics.items() if (row, name) not in self._rows}
                    self._rows |= {(row, name) for name in new}
                    self._log(new, row, time, None)

    def data(self, examples: Mapping[str, Sequence[Example]]) -> None:
        """Hand on what the data is; by task, the test examples that are scored, where known."""
        if self.trackers:
            with self._records_of_run():
                self._tell("data", data_splits(self._folder, examples))

    def _log(
        self,
        metrics: Mapping[str, float | None],
        step: int,
        time: float | None,
        stage: int | None,
    ) -> None:
        finite = {k: float(v) for k, v in metrics.items() if v is not None and math.isfinite(v)}
        if finite:
            when = clock.time() if time is None else time
            self._tell("log", finite, step, when, stage)

    def artifact(self, path: Path) -> None:
        """Keep a copy of a file, or of a folder with everything in it."""
        self._tell("artifact", path, self._stage)

    def samples(self, stage: int, task: str) -> None:
        """Hand on a few rollouts of a stage, index from 0, as the run keeps them for people."""
        if self.trackers:
            with self._records_of_run():
                self._tell("samples", stage, task, self._reader.read().samples(stage))

    def prompts(self, stage: int, task: str, population: Population, live: PromptProgram) -> None:
        """Keep a task's prompts as they are after a stage, index from 0."""
        prompts = [candidate.program for candidate in population]
        self._tell("prompts", stage, task, prompts, live)

    def send_run(self, examples: Mapping[str, Sequence[Example]] = MappingProxyType({})) -> None:
        """Send everything that is in the run folder to every tracker; `examples` as for `data`.

        Raises:
            TrackerError: One of them did not take all of it.
        """
        records = read_run_records(self._folder)
        for tracker in self.trackers:
            tracker.run = replace(tracker.run, since=0.0)
        self._begin()
        self.data(examples)
        self._send(records)
        for path in (self._folder / name for name in REPORT_FILES):
            if path.is_file():
                self.artifact(path)
        self._tell("end", records.status)
        self._settle(self.trackers)
        if self.num_failures:
            failures = (
                f"{t.num_failures} calls of {t.name} failed, got {t.first_failure} first"
                for t in self.trackers
                if t.num_failures
            )
            raise TrackerError(
                f"{self._folder}: {'; '.join(failures)}. Bring it back, then send again."
            )

    def _begin(self) -> None:
        for tracker in self.trackers:
            tracker.call("begin", tracker.run)
        if self.num_failures:
            save_identity(self.trackers)

    def _settle(self, sent: Sequence[GuardedTracker]) -> None:
        """Remember who missed something, after these were sent everything."""
        for tracker in sent:
            tracker.has_missed = tracker.num_failures > 0
        if sent:
            save_identity(self.trackers)

    def _send(self, records: RunRecords) -> None:
        self._send_row(records, 0)
        for stage in records.stages():
            self._stage = stage.index
            self._tell("begin_stage", stage.index, stage.task)
            for event in stage.events:
                step = event.step if isinstance(event, StepEvent) else event.cycle
                self.log(event.metrics, step, event.time)
            self._send_row(records, stage.index + 1)
            if stage.folder is not None:
                self.artifact(stage.folder)
                self.samples(stage.index, stage.task)
                for task, (population, live) in stage.prompts.items():
                    self.prompts(stage.index, task, population, live)
            self._tell("end_stage", stage.index, stage.status)
            self._stage = None

    @contextlib.contextmanager
    def _records_of_run(self) -> Iterator[None]:
        """Read what the run wrote, for trackers; where that fails, the run continues."""
        try:
            yield
        except (FastSlowError, OSError, ValueError) as error:
            _LOG.warning("tracking: records cannot be read, got %s", shorten(str(error), 200))

    def _send_row(self, records: RunRecords, row: int) -> None:
        for metrics, time in records.row(row):
            self._log(metrics, row, time, None)

    @contextlib.contextmanager
    def _ending(self, method: str, *values: int) -> Iterator[None]:
        status: Status = "failed"
        try:
            yield
            status = "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            self._tell(method, *values, status)

    def _tell(self, method: str, *values: Any) -> None:
        """Call a method of all that listen; note at once whose first failure it is."""
        failures = self.num_failures
        for tracker in self._audience:
            tracker.call(method, *values)
        if failures < self.num_failures:
            save_identity(self.trackers)


def save_identity(trackers: Sequence[GuardedTracker]) -> None:
    """Write `tracker.json`, if the disk takes it: the identity of a run, and who missed of it."""
    for run in [tracker.run for tracker in trackers[:1]]:
        card = {"identity": run.identity, "missed": [t.name for t in trackers if t.has_missed]}
        with contextlib.suppress(OSError):  # a disk that refuses this stops the run elsewhere
            write_file(run.folder, IDENTITY_FILE, json.dumps(card, indent=2) + "\n")
