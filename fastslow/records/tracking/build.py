"""Builds the trackers that a configuration names, and what tells them of a run."""

import contextlib
import importlib.util
import re
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastslow.config.models import RunConfig
from fastslow.config.tracking import (
    MlflowConfig,
    TensorboardConfig,
    TrackerConfig,
    TrackioConfig,
    WandbConfig,
)
from fastslow.core.errors import ConfigError
from fastslow.core.files import read_json
from fastslow.core.plugins import CustomUse, find
from fastslow.core.tracker import TrackedRun, Tracker, TrackerDefinition
from fastslow.records.tracking.live import (
    IDENTITY_FILE,
    GuardedTracker,
    Tracking,
    save_identity,
)
from fastslow.records.tracking.records import last_time

EXTRAS = ("tensorboard", "trackio", "wandb")
"""Trackers whose package, of the same name, is an extra of ours."""
_IDENTITY = re.compile(r"[0-9a-f]{32}")


def build_tracking(config: RunConfig, folder: Path, is_on: bool = True) -> Tracking:
    """What hands things on to the run's trackers, or to nobody.

    A run folder without `tracker.json` gets one. `is_on` says whether this process tracks.

    Raises:
        ConfigError: A tracker lacks its package, or one of the user's own is not found.
    """
    if not is_on or not config.trackers:
        return Tracking((), folder)
    card: Any = None
    with contextlib.suppress(OSError, ValueError):  # none yet; a damaged one is replaced
        card = read_json(folder / IDENTITY_FILE)
    is_new = not isinstance(card, dict) or not _IDENTITY.fullmatch(str(card.get("identity")))
    if is_new:
        card = {"identity": uuid.uuid4().hex}
    missed, last = card.get("missed"), 0.0 if is_new else last_time(folder)
    run = TrackedRun(folder.name, card["identity"], folder, config.model_dump(mode="json"))
    trackers = []
    for name, tracker in build_trackers(config).items():
        # True was written for the only one
        has_missed = missed is True or (isinstance(missed, list) and name in missed)
        since = 0.0 if has_missed else last
        trackers.append(GuardedTracker(name, tracker, replace(run, since=since), has_missed))
    if is_new:  # before a tracker hears of it: after a crash it is found by this
        save_identity(trackers)
    return Tracking(trackers, folder)


def prepare_tracking(config: RunConfig) -> None:
    """Make what runs share before several of them start at the same time.

    Raises:
        ConfigError: A tracker lacks its package, or one of the user's own is not found.
    """
    for tracker in build_trackers(config).values():
        with contextlib.suppress(Exception):  # a tracker's own code; each run says so itself
            tracker.prepare()


def build_trackers(config: RunConfig) -> dict[str, Tracker]:
    """The trackers that a configuration names, in its order, by the names of `tracker_names`.

    Raises:
        ConfigError: One lacks its package, or one of the user's own is not found.
    """
    require_trackers(config)
    trackers = (_build(section, config) for section in config.trackers)
    return dict(zip(tracker_names(config), trackers, strict=True))


def _build(section: TrackerConfig, config: RunConfig) -> Tracker:
    place = Path(config.runs_dir)
    match section:
        case MlflowConfig(uri=uri, experiment=experiment):
            from fastslow.records.tracking.mlflow import MlflowTracker

            return MlflowTracker(place, uri, experiment or config.name)
        case TensorboardConfig(folder=folder):
            from fastslow.records.tracking.tensorboard import TensorboardTracker

            return TensorboardTracker(place / "tensorboard" if folder is None else Path(folder))
        case TrackioConfig(project=project):
            from fastslow.records.tracking.trackio import TrackioTracker

            return TrackioTracker(project or config.name)
        case WandbConfig(project=project, entity=entity, mode=mode):
            from fastslow.records.tracking.wandb import WandbTracker

            return WandbTracker(place, project or config.name, entity, mode)
        case CustomUse(use=use, params=params):
            return find(TrackerDefinition, use).build(params)


def require_trackers(config: RunConfig) -> None:
    """Make sure that every tracker finds its package, and W&B its key.

    Raises:
        ConfigError: One does not.
    """
    for index, section in enumerate(config.trackers):
        if section.kind in EXTRAS and importlib.util.find_spec(section.kind) is None:
            path = f"tracking.{index}" if isinstance(config.tracking, tuple) else "tracking"
            raise ConfigError(
                f"{path}.kind: {section.kind} needs the package of that name, which is not "
                f"installed. Install it with: pip install 'fastslow[{section.kind}]'"
            )
        if isinstance(section, WandbConfig):
            from fastslow.records.tracking.wandb import mode_of, require_key

            require_key(mode_of(section.mode))


def tracker_names(config: RunConfig) -> list[str]:
    """A name for each tracker, for records and messages; a number behind one that comes again."""
    names: list[str] = []
    for section in config.trackers:
        name: str = section.kind
        if isinstance(section, CustomUse):
            name = find(TrackerDefinition, section.use).name
        num_alike = sum(earlier.partition(" ")[0] == name for earlier in names)
        names.append(f"{name} {num_alike + 1}" if num_alike else name)
    return names
