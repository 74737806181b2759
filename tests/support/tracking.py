"""A tracker as a run tells it, without a run."""

from fastslow.core.tracker import TrackedRun, Tracker
from fastslow.records.tracking.live import GuardedTracker, Tracking


def tracking_of(run: TrackedRun, **trackers: Tracker) -> Tracking:
    """What tells these trackers of `run`."""
    guarded = [GuardedTracker(name, tracker, run) for name, tracker in trackers.items()]
    return Tracking(guarded, run.folder)
