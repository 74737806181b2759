"""The tracker Weights & Biases: one W&B run per run, metrics and prompts, online or offline.

What W&B has of a run is read from the logs that it keeps on this machine in both modes: one that
is offline cannot be asked. Of this machine nothing is sent but what a run logs: no code, no git
state, no host, user or command, no figures of the system. The only module that imports wandb.
"""

import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastslow.core.errors import ConfigError
from fastslow.core.files import read_regular
from fastslow.core.prompts import PromptProgram
from fastslow.core.tracker import Status, TrackedRun
from fastslow.policy.render import chat_messages
from fastslow.records.tracking.points import CHANNELS, Points, SeriesTracker, may_repeat

PATIENCE_S = 15.0
"""How long W&B's servers may take to answer when a run begins, and to take the rest at its end."""
_HEAD, _BLOCK = 7, 32768
"""Bytes of the head of a log and of each piece in it, and of a block."""
_SILENCE: Mapping[str, Any] = {
    **dict.fromkeys(("disable_code", "disable_git", "silent", "disable_job_creation"), True),
    **dict.fromkeys(("x_disable_meta", "x_disable_stats", "x_disable_machine_info"), True),
    **dict.fromkeys(("save_code", "x_save_requirements"), False),
    **dict.fromkeys(("host", "username", "email", "program"), ""),
    "console": "off",
    "init_timeout": PATIENCE_S,
    "finish_timeout": PATIENCE_S,
    "finish_timeout_raises": True,
}


class WandbTracker(SeriesTracker):
    """Tracks in W&B; its files are in `wandb` under `folder`."""

    buffers = True

    def __init__(self, folder: Path, project: str, entity: str | None, mode: str) -> None:
        super().__init__()
        self._folder, self._project, self._entity = folder, project, entity
        self._mode = mode_of(mode)
        self._num_calls = 0
        """W&B's own step of the next call; one that comes again is ignored by its server."""
        self._axes: set[str] = set()
        """Names of metrics whose axis W&B knows."""
        self._run: Any = None

    def begin(self, run: TrackedRun) -> None:
        """Open the W&B run, or the one made for it before."""
        import wandb

        require_key(self._mode)
        rows = list(history(self._folder, run.identity))
        self._num_calls = max((int(row["_step"]) + 1 for row in rows), default=0)
        self._points = Points(
            (name, int(row[_axis(name)]), value)
            for row in rows
            for name, value in row.items()
            if not (name.startswith("_") or name in ("row", "time") or name.endswith("/step"))
            if may_repeat(name, row["time"], run.since)
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=self._project,
            entity=self._entity,
            id=run.identity,
            name=run.name,
            config=dict(run.config),
            dir=str(self._folder),
            mode=self._mode,
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(**_SILENCE),
        )

    def write(self, points: Mapping[str, float], step: int, time: float) -> None:
        """Hand points on, each over its own axis, at a step of W&B's own."""
        axes = {name: _axis(name) for name in points}
        for name in axes.keys() - self._axes:
            self._run.define_metric(name, step_metric=axes[name])
        self._axes |= axes.keys()
        row = {**points, **dict.fromkeys(axes.values(), step), "time": time}
        self._run.log(row, step=self._num_calls, commit=True)
        self._num_calls += 1

    def prompts(
        self, stage: int, task: str, prompts: Sequence[PromptProgram], live: PromptProgram
    ) -> None:
        """Keep the prompt that a task is deployed with in the summary of the W&B run."""
        self._run.summary[f"prompt/{task}"] = json.dumps(chat_messages(live, "")[:-1])

    def end(self, status: Status) -> None:
        """Close the W&B run.

        Raises:
            TimeoutError: Its servers did not take all of it; `wandb sync` sends it from `wandb`.
        """
        self._run.finish(exit_code=0 if status == "finished" else 1)


def mode_of(configured: str) -> str:
    """The mode of W&B: that of the environment, or else the configured one."""
    return os.environ.get("WANDB_MODE") or configured


def require_key(mode: str) -> None:
    """Make sure that W&B finds a key where it needs one, and so never asks for it.

    Raises:
        ConfigError: It does not.
    """
    import wandb

    if mode == "online" and not wandb.login(prompt=False, verify=False):
        raise ConfigError(
            "tracking: the tracker wandb has no key. Put it into the variable WANDB_API_KEY, or "
            "set mode: offline and send the runs later with: wandb sync"
        )


def _axis(name: str) -> str:
    """The metric that a metric is drawn over: steps of a stage, or rows of the matrix."""
    stage, _, rest = name.partition("/")
    return f"{stage}/step" if rest.startswith(CHANNELS) else "row"


def history(folder: Path, identity: str) -> Iterator[dict[str, float]]:
    """What all parts of a run logged, call by call, as W&B's logs under `folder` have it.

    What W&B had not written yet when it was killed is not there.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(folder.glob(f"wandb/*run-*-{identity}/*.wandb")):
        for message in _messages(read_regular(path)):
            record = Record.FromString(message)
            if record.HasField("history"):
                items = record.history.item
                yield {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items}


def _messages(log: bytes) -> Iterator[bytes]:
    """The whole messages of a log in LevelDB's format, after W&B's own head.

    It has blocks of 32 KiB; in each are pieces, with a head of checksum, length and kind: 1 a whole
    message, 2 the first piece of one, 3 another, 4 the last. What is left of a block is padding.
    """
    place, message = _HEAD, b""
    while place + _HEAD <= len(log):
        room = _BLOCK - place % _BLOCK
        if room < _HEAD:
            place += room
            continue
        _, length, kind = struct.unpack_from("<IHB", log, place)
        piece = log[place + _HEAD : place + _HEAD + length]
        if len(piece) < length:  # cut short by a kill
            return
        message = piece if kind in (1, 2) else message + piece
        place += _HEAD + length
        if kind in (1, 4):
            yield message
