"""A run's tracker as the loop sees it: told live, survived when it fails, told the rest later.

`tracker.json` in the run folder keeps the identity by which a tracker finds the run again, and
whether it missed anything. The next resume sends that from the records, and so does
`fastslow track`.
"""

import contextlib
import json
import logging
import math
import time as clock
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastslow.config.models import MlflowConfig, RunConfig
from fastslow.core.errors import TrackerError
from fastslow.core.files import is_file, read_json, write_file
from fastslow.core.plugins import CustomUse, find
from fastslow.core.prompts import Population, PromptProgram
from fastslow.core.tracker import Status, TrackedRun, Tracker, TrackerDefinition
from fastslow.records.events import StepEvent
from fastslow.records.tracking.records import REPORT_FILES, RunRecords, last_time, read_run_records

_LOG = logging.getLogger(__name__)
IDENTITY_FILE = "tracker.json"
SLOW_S = 0.5
"""A call that fails after so long holds the run up."""
REST_S = 30.0
"""A tracker whose call did is left alone for so long."""


class Tracking:
    """Hands on to a tracker what a run produces; whatever the tracker raises ends here.

    Args:
        tracker: Receives it.
        run: The run; `tracker.json` in its folder is written when something is missed.
        has_missed: Whether an earlier part of the run had failures, so that everything recorded is
            sent first.
    """

    def __init__(self, tracker: Tracker, run: TrackedRun, has_missed: bool = False) -> None:
        self.num_failures = 0
        """Calls that failed, or were left out while the tracker was left alone."""
        self._tracker, self._run, self._has_missed = tracker, run, has_missed
        self._stage: int | None = None
        self._rests_until = -math.inf
        self._first_failure = ""

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """The whole run, or what a resume does of it; everything else happens inside."""
        self._call(self._tracker.begin, self._run)
        if self._has_missed and not self.num_failures:
            self._send(read_run_records(self._run.folder))
            self._has_missed = self.num_failures > 0
            self._save_identity()
        with self._ending(self._tracker.end):
            yield
        if self.num_failures:
            _LOG.warning(
                "tracking: %d calls failed. To send what was missed: fastslow track %s",
                self.num_failures,
                self._run.folder,
            )

    @contextlib.contextmanager
    def stage(self, index: int, task: str) -> Iterator[None]:
        """One stage, index from 0; what is logged inside belongs to it."""
        self._stage = index
        self._call(self._tracker.begin_stage, index, task)
        try:
            with self._ending(lambda status: self._tracker.end_stage(index, status)):
                yield
        finally:
            self._stage = None

    def log(
        self, metrics: Mapping[str, float | None], step: int, time: float | None = None
    ) -> None:
        """Keep the finite values of `metrics` at `step`; others are left out.

        Args:
            metrics: Values by name.
            step: As in `Tracker.log`.
            time: Seconds since 1970; None is now.
        """
        finite = {k: float(v) for k, v in metrics.items() if v is not None and math.isfinite(v)}
        if finite:
            when = clock.time() if time is None else time
            self._call(self._tracker.log, finite, step, when, self._stage)

    def artifact(self, path: Path) -> None:
        """Keep a copy of a file, or of a folder with everything in it."""
        self._call(self._tracker.artifact, path, self._stage)

    def prompts(self, stage: int, task: str, population: Population, live: PromptProgram) -> None:
        """Keep a task's prompts as they are after a stage, index from 0."""
        prompts = [candidate.program for candidate in population]
        self._call(self._tracker.prompts, stage, task, prompts, live)

    def send_run(self) -> None:
        """Send everything that is in the run folder.

        Raises:
            TrackerError: The tracker did not take all of it.
        """
        records = read_run_records(self._run.folder)
        self._call(self._tracker.begin, replace(self._run, since=0.0))
        self._send(records)
        for name in REPORT_FILES:
            if is_file(self._run.folder / name):
                self.artifact(self._run.folder / name)
        self._call(self._tracker.end, records.status)
        if self.num_failures:
            raise TrackerError(
                f"{self._run.folder}: {self.num_failures} calls of the tracker failed, got "
                f"{self._first_failure} first. Bring it back, then send again."
            )
        self._has_missed = False
        self._save_identity()

    def _send(self, records: RunRecords) -> None:
        self._send_row(records, 0)
        for stage in records.stages():
            self._stage = stage.index
            self._call(self._tracker.begin_stage, stage.index, stage.task)
            for event in stage.events:
                step = event.step if isinstance(event, StepEvent) else event.cycle
                self.log(event.metrics, step, event.time)
            self._send_row(records, stage.index + 1)
            if stage.folder is not None:
                self.artifact(stage.folder)
                for task, (population, live) in stage.prompts.items():
                    self.prompts(stage.index, task, population, live)
            self._call(self._tracker.end_stage, stage.index, stage.status)
            self._stage = None

    def _send_row(self, records: RunRecords, row: int) -> None:
        for metrics, time in records.row(row):
            self.log(metrics, row, time)

    @contextlib.contextmanager
    def _ending(self, end: Callable[[Status], None]) -> Iterator[None]:
        status: Status = "failed"
        try:
            yield
            status = "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            self._call(end, status)

    def _call(self, method: Callable[..., None], *values: Any) -> None:
        """The boundary: whatever a tracker raises is counted, and the run continues."""
        started = clock.monotonic()
        if started < self._rests_until:
            self.num_failures += 1
            return
        try:
            method(*values)
        except Exception as error:  # a tracker's own code may raise anything
            ended = clock.monotonic()
            if ended - started > SLOW_S:
                self._rests_until = ended + REST_S
            self._count(f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}")

    def _count(self, failure: str) -> None:
        self.num_failures += 1
        if self.num_failures > 1:
            return
        self._first_failure = failure
        _LOG.warning(
            "tracking: a call of the tracker failed, got %s. The run continues and its records are "
            "in the run folder; further failures are only counted.",
            failure,
        )
        self._has_missed = True
        self._save_identity()

    def _save_identity(self) -> None:
        with contextlib.suppress(OSError):  # a disk that refuses this stops the run elsewhere
            save_identity(self._run, self._has_missed)


def save_identity(run: TrackedRun, has_missed: bool) -> None:
    """Write `tracker.json`.

    Raises:
        OSError: The disk refused.
    """
    card = {"identity": run.identity, "missed": has_missed}
    write_file(run.folder, IDENTITY_FILE, json.dumps(card, indent=2) + "\n")


def build_tracking(config: RunConfig, folder: Path, is_on: bool = True) -> Tracking:
    """What hands things on to the run's tracker; to nothing when it is off.

    Args:
        config: The run.
        folder: The run folder; gets `tracker.json` if it has none.
        is_on: Whether there is a tracker in this process.

    Raises:
        ConfigError: A tracker of the user's own is not found.
    """
    card: Any = {}
    if is_on and config.tracking is not None:
        with contextlib.suppress(OSError, ValueError):  # none yet; a damaged one is replaced
            card = read_json(folder / IDENTITY_FILE)
    card = card if isinstance(card, dict) and isinstance(card.get("identity"), str) else {}
    identity = card.get("identity", uuid.uuid4().hex)
    has_missed = bool(card.get("missed"))
    is_resumed = is_on and bool(card) and not has_missed
    since = last_time(folder) if is_resumed else 0.0
    run = TrackedRun(folder.name, identity, folder, config.model_dump(mode="json"), since)
    if not is_on or config.tracking is None:
        return Tracking(Tracker(), run)
    if not card:  # before the tracker hears of it: after a crash it is found by this
        with contextlib.suppress(OSError):
            save_identity(run, has_missed=False)
    return Tracking(build_tracker(config), run, has_missed)


def prepare_tracking(config: RunConfig) -> None:
    """Make what runs share before several of them start at the same time.

    Raises:
        ConfigError: A tracker of the user's own is not found.
    """
    tracker = build_tracker(config)
    with contextlib.suppress(Exception):  # a tracker's own code; each run says so itself
        tracker.prepare()


def build_tracker(config: RunConfig) -> Tracker:
    """The tracker that a configuration names; one that does nothing when it names none.

    Raises:
        ConfigError: One of the user's own is not found.
    """
    match config.tracking:
        case CustomUse(use=use, params=params):
            return find(TrackerDefinition, use).build(params)
        case MlflowConfig(uri=uri, experiment=experiment):
            from fastslow.records.tracking.mlflow import MlflowTracker

            return MlflowTracker(Path(config.runs_dir), uri, experiment or config.name)
        case _:
            return Tracker()


def tracker_name(config: RunConfig) -> str | None:
    """The tracker's name for records and reports; None when it is off."""
    if isinstance(config.tracking, CustomUse):
        return find(TrackerDefinition, config.tracking.use).name
    return None if config.tracking is None else config.tracking.kind
