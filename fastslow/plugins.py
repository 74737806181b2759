"""The one public face for authors of tasks, remedies, signals, measures and trackers.

A plug-in is one file in the folder of its kind, next to where a run is started: `remedies/NAME.py`,
`signals/`, `measures/` or `trackers/`, with one function whose decorator says the same NAME. A
configuration names it `kind: custom, use: NAME`, or `use: package.module:function` where it is in a
module that can be imported, and gives its `params`, which are checked against its parameter class.
A task is a folder, `tasks/NAME/`, and named by `use` alone.
"""

from fastslow.channels.slow.remedies.base import (
    Ended,
    EndReport,
    Memory,
    Remedy,
    RemedyConfig,
    RemedyPrice,
    Stage,
    StageSize,
    TaughtRow,
    Teacher,
    Update,
    Weights,
    remedy,
)
from fastslow.core.tracker import Tracker, TrackerConfig, tracker
from fastslow.core.types import Example, Grade, Metric
from fastslow.measure.base import (
    Measure,
    MeasureConfig,
    Measured,
    MeasurePrice,
    RowSize,
    Snapshot,
    measure,
)
from fastslow.policy.signals import Reading, Signal, SignalConfig, signal
from fastslow.task.definition import Task, TaskConfig, task

__all__ = [
    "EndReport",
    "Ended",
    "Example",
    "Grade",
    "Measure",
    "MeasureConfig",
    "MeasurePrice",
    "Measured",
    "Memory",
    "Metric",
    "Reading",
    "Remedy",
    "RemedyConfig",
    "RemedyPrice",
    "RowSize",
    "Signal",
    "SignalConfig",
    "Snapshot",
    "Stage",
    "StageSize",
    "Task",
    "TaskConfig",
    "TaughtRow",
    "Teacher",
    "Tracker",
    "TrackerConfig",
    "Update",
    "Weights",
    "measure",
    "remedy",
    "signal",
    "task",
    "tracker",
]
