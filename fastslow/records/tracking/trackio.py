"""The tracker Trackio: metrics in its SQLite files on this machine; `trackio sync` shares them.

The only module that imports trackio. It reads and writes by the class that Trackio's own importers
use: `trackio.log` takes no time, writes later in a thread, and only warns of what fails.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fastslow.core.tracker import TrackedRun
from fastslow.core.types import Json
from fastslow.records.tracking.points import Points, SeriesTracker, may_repeat

_OWN = ("timestamp", "step")
"""What Trackio adds to the metrics of a call."""


class TrackioTracker(SeriesTracker):
    """Tracks where Trackio keeps its projects, which TRACKIO_DIR says."""

    def __init__(self, project: str) -> None:
        super().__init__()
        self._project = project
        self._run: TrackedRun | None = None
        self._config: dict[str, Json] | None = None
        """The configuration, until it is kept."""

    def begin(self, run: TrackedRun) -> None:
        """Read what is there of the run."""
        self._run, self._config = run, dict(run.config)
        self._points = Points(
            (name, call["step"], value)
            for call in self._storage().get_logs(self._project, run.name, run_id=run.identity)
            for time in [datetime.fromisoformat(call["timestamp"]).timestamp()]
            for name, value in call.items()
            if name not in _OWN and may_repeat(name, time, run.since)
        )

    def write(self, points: Mapping[str, float], step: int, time: float) -> None:
        """Keep points, and with the first ones the configuration."""
        assert self._run is not None
        self._storage().bulk_log(
            project=self._project,
            run=self._run.name,
            run_id=self._run.identity,
            metrics_list=[dict(points)],
            steps=[step],
            timestamps=[datetime.fromtimestamp(time, UTC).isoformat()],
            config=self._config,
        )
        self._config = None

    def _storage(self) -> Any:
        from trackio.sqlite_storage import SQLiteStorage

        return SQLiteStorage
