"""The tracker Trackio: metrics in its SQLite files on this machine; `trackio sync` shares them.

The only module that imports trackio. It reads and writes by the class that Trackio's own importers
use: `trackio.log` takes no time, writes later in a thread, and only warns of what fails.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fastslow.core.tracker import TrackedRun, Tracker
from fastslow.core.types import Json
from fastslow.records.tracking.points import Points, series

_OWN = ("timestamp", "step")
"""What Trackio adds to the metrics of a call."""


class TrackioTracker(Tracker):
    """Tracks where Trackio keeps its projects, which TRACKIO_DIR says."""

    def __init__(self, project: str) -> None:
        self._project = project
        self._run: TrackedRun | None = None
        self._config: dict[str, Json] | None = None
        """The configuration, until it is kept."""
        self._points = Points()
        self._tasks: dict[int, str] = {}

    def begin(self, run: TrackedRun) -> None:
        """Read what is there of the run."""
        self._run, self._config = run, dict(run.config)
        self._points = Points(
            (name, call["step"], value)
            for call in self._storage().get_logs(self._project, run.name, run_id=run.identity)
            if datetime.fromisoformat(call["timestamp"]).timestamp() > run.since
            for name, value in call.items()
            if name not in _OWN
        )

    def begin_stage(self, stage: int, task: str) -> None:
        """Remember the task, which is part of the names of what its channels report."""
        self._tasks[stage] = task

    def log(self, metrics: Mapping[str, float], step: int, time: float, stage: int | None) -> None:
        """Keep values that are not there."""
        assert self._run is not None
        task = "" if stage is None else self._tasks[stage]
        named = {series(name, stage, task): value for name, value in metrics.items()}
        if new := self._points.new(named, step):
            self._storage().bulk_log(
                project=self._project,
                run=self._run.name,
                run_id=self._run.identity,
                metrics_list=[new],
                steps=[step],
                timestamps=[datetime.fromtimestamp(time, UTC).isoformat()],
                config=self._config,
            )
            self._config = None

    def _storage(self) -> Any:
        from trackio.sqlite_storage import SQLiteStorage

        return SQLiteStorage
