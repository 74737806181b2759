"""The trackers' sections: who hears of a run as well as its folder, and where they keep it."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, Tag

from fastslow.core.keys import OURS, KeylessModel, key, kind_among
from fastslow.core.plugins import CustomUse


class TrackerSection(KeylessModel):
    """Keys of a shipped tracker. Its credentials come from the environment alone."""

    key_advice = (
        " (MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD or MLFLOW_TRACKING_TOKEN; "
        "PGPASSWORD for PostgreSQL; WANDB_API_KEY; HF_TOKEN): leave it out of the address, and "
        "replace it"
    )


class MlflowConfig(TrackerSection):
    """Tracker: MLflow, which gets metrics, prompts and adapters as well as the run folder."""

    kind: Literal["mlflow"] = key("mlflow", "name", OURS)
    """Which tracker."""
    uri: str | None = key(None, "address", "a SQLite file: mlflow.db in runs_dir")
    """MLflow tracking address."""
    experiment: str | None = key(None, "name", "the run's name")
    """MLflow experiment; runs that belong together share one."""


class TensorboardConfig(TrackerSection):
    """Tracker: event files for TensorBoard, which get metrics and prompts. No server, no key."""

    kind: Literal["tensorboard"] = key(..., "name", "required")
    """Which tracker."""
    folder: str | None = key(None, "folder", "tensorboard in runs_dir")
    """Holds one folder per run."""


class TrackioConfig(TrackerSection):
    """Tracker: Trackio, which gets metrics, in files of this machine; TRACKIO_DIR says where."""

    kind: Literal["trackio"] = key(..., "name", "required")
    """Which tracker."""
    project: str | None = key(None, "name", "the run's name")
    """Project; runs that belong together share one."""


class WandbConfig(TrackerSection):
    """Tracker: Weights & Biases, which gets metrics and prompts; its key is in WANDB_API_KEY."""

    kind: Literal["wandb"] = key(..., "name", "required")
    """Which tracker."""
    project: str | None = key(None, "name", "the run's name")
    """Project; runs that belong together share one."""
    entity: str | None = key(None, "name", "the account's own")
    """User or team that the project belongs to."""
    mode: Literal["online", "offline"] = key("online", "name", "W&B's own")
    """Whether runs are sent as they happen, or kept in `wandb` in runs_dir for `wandb sync`; the
    variable WANDB_MODE comes first."""


TrackerConfig: TypeAlias = Annotated[
    Annotated[MlflowConfig, Tag("mlflow")]
    | Annotated[TensorboardConfig, Tag("tensorboard")]
    | Annotated[TrackioConfig, Tag("trackio")]
    | Annotated[WandbConfig, Tag("wandb")]
    | Annotated[CustomUse, Tag("custom")],
    kind_among("mlflow", "tensorboard", "trackio", "wandb", "custom"),
]
"""A tracker's section: one model per `kind`."""
TrackingConfig: TypeAlias = (
    TrackerConfig | Annotated[tuple[TrackerConfig, ...], Field(min_length=1)]
)
"""One section, or a list of them."""
GROUPS = {"mlflow": "experiment", "trackio": "project", "wandb": "project"}
"""The key of each tracker that says what runs share."""


def grouped(tracking: TrackingConfig | None, name: str) -> TrackingConfig | None:
    """`tracking` with runs under one experiment or project called `name`, unless it names one."""
    if isinstance(tracking, tuple):
        return tuple(_grouped(section, name) for section in tracking)
    return None if tracking is None else _grouped(tracking, name)


def _grouped(section: TrackerConfig, name: str) -> TrackerConfig:
    field = GROUPS.get(section.kind, "")
    is_open = getattr(section, field, name) is None
    return section.model_copy(update={field: name}) if is_open else section
