"""One folder per run: its configuration, its records, its resume points."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from fastslow.config.cost import Cost
from fastslow.config.loading.load import config_hash, dump_resolved
from fastslow.config.models import RunConfig
from fastslow.core.credentials import without_keys
from fastslow.core.decode import shaped
from fastslow.core.errors import CheckpointError
from fastslow.core.files import (
    damage,
    disk_errors,
    is_file,
    read_json,
    replace_folder,
    write_checksums,
    write_file,
)
from fastslow.core.text import shorten, visible
from fastslow.core.types import Json
from fastslow.records.data import write_data
from fastslow.records.environment import describe_environment
from fastslow.records.jsonl import RecordWriter
from fastslow.records.lock import State, locked
from fastslow.records.new_folder import file_name, new_folder
from fastslow.records.progress_file import ProgressWriter
from fastslow.records.seal import SealWriter, begin_seal, require_unbroken
from fastslow.records.state import RunState
from fastslow.records.tracking.build import tracker_names
from fastslow.task.definition import Task


def require_no_links(path: Path) -> None:
    """Make sure that nothing under a run folder leads out of it.

    Raises:
        CheckpointError: There is a link; names it. Or the path is none that can be.
    """
    try:
        os.access(path, os.F_OK)
    except ValueError as error:  # a zero byte, half of a character
        raise CheckpointError(f"{path}: not a path, {error}. Give a run folder.") from error
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            place = Path(folder) / name
            if place.is_symlink():
                raise CheckpointError(
                    f"{place}: a link, got one to {shorten(str(place.readlink()), 100)!r}. Runs "
                    "write to their own folder alone; put the file itself there."
                )


RECORD_FILES = ("scores", "events", "metrics")
"""Stems of the append-only files; a resume point remembers how long each was."""
ESTIMATE_FILE = "estimate.json"
"""Minutes and memory that the run was expected to take when it began."""
KEPT_POINTS = 2
"""Resume points kept: the newest, and one before it in case the newest is damaged."""
POINT_NAME = re.compile(r"^\d{3,}-\d{3,}(-\d{3,})?$")


class RunDir:
    """An open run folder with one writer: this process, until `close`, or a `LeaseError`."""

    def __init__(self, path: Path) -> None:
        """Lock the folder and open its record files; use `create` or `open`.

        Raises:
            CheckpointError: Another process writes to it, it cannot be written, or a link in it
                would have this process write elsewhere.
        """
        self.path = path
        self.warnings: list[str] = []
        """Damaged resume points that `load_state` passed over, one sentence each."""
        require_no_links(path)
        with contextlib.ExitStack() as stack:
            self._require = stack.enter_context(locked(path)).require
            self._writers = {
                stem: stack.enter_context(RecordWriter(path / f"{stem}.jsonl", self._require))
                for stem in RECORD_FILES
            }
            self.scores, self.events, self.metrics = self._writers.values()
            require_unbroken(path)
            self._seal = SealWriter(path, self._writers)
            self._resources = stack.pop_all()

    @classmethod
    def create(
        cls,
        config: RunConfig,
        layers: Mapping[str, str],
        command: Sequence[str],
        device: str | None = None,
        day: date | None = None,
        tasks: Mapping[str, Task] = MappingProxyType({}),
        dtype: str | None = None,
    ) -> "RunDir":
        """Make `MMDD-HHMM-<name>-<hash>` in `config.runs_dir`, never an existing folder.

        The configuration is written fully resolved; `layers` has the text of every file it was read
        from, by path. The model runs on `device`, or else the configured one, in the number format
        `dtype`; `day` is what its chat template takes for today. The examples of `tasks` are
        remembered, see `records/data.py`.

        Raises:
            CheckpointError: The folder cannot be made or written.
        """

        def write(folder: Path, run: str) -> None:
            write_file(folder, "config.json", dump_resolved(config))
            for index, (name, text) in enumerate(layers.items()):
                write_file(folder, f"layers/{index:02d}-{file_name(Path(name).name)}", text)
            if tasks:
                write_data(folder, tasks)
            environment = describe_environment(device or config.model.device)
            write_file(folder, "environment.json", _json(environment))
            begin_seal(folder, run)
            card: dict[str, Json] = {
                "run": run,
                "name": config.name,
                "command": list(command),
                "config_hash": config_hash(config),
                "tasks": list(config.task_names),
                "stages": [stage.task for stage in config.stages],
                "tracker": ", ".join(tracker_names(config)) or None,
                "state": "running",
                "started": _now(),
                "date": (day or date.today()).isoformat(),
                "dtype": dtype,
                "ended": None,
            }
            write_file(folder, "run.json", _json(card))

        with disk_errors(Path(config.runs_dir), "a run folder cannot be made here"):
            path = new_folder(config, write)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunDir":
        """Open an existing run folder for writing, as a resumed run does.

        Raises:
            CheckpointError: It is not a run folder, or another process writes to it.
        """
        cls.require(path)
        return cls(path)

    @staticmethod
    def require(path: Path) -> None:
        """Make sure that a run was made in `path`, without opening it.

        Raises:
            CheckpointError: It is not a run folder.
        """
        if not is_file(path / "run.json"):
            raise CheckpointError(
                f"{path}: not a run folder (no run.json). Give the path of a folder that "
                "`fastslow train` made."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the record files and let another process write here."""
        self._resources.close()

    def mark(self, state: State) -> None:
        """Write the run's state, and when it ended, to `run.json`.

        Raises:
            CheckpointError: The disk refused; the old state stands.
        """
        with disk_errors(self.path, "the run's state cannot be written"):
            self._extend_card(
                lambda card: {"state": state, "ended": None if state == "running" else _now()}
            )
            self._seal.write()

    def reconfigure(self, config: RunConfig, overrides: Sequence[str]) -> None:
        """Continue under another configuration, and list what it was overridden by in `run.json`.

        Raises:
            CheckpointError: The disk refused.
        """
        entry = {"time": _now(), "overrides": [without_keys(text) for text in overrides]}
        with disk_errors(self.path, "the run's configuration cannot be written"):
            self._extend_card(lambda card: {"resumed": [*card.get("resumed", ()), entry]})
            self._seal.replace_config(dump_resolved(config))

    def _extend_card(self, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        """Write `run.json` again with what `change` makes of it laid over."""
        self._require()
        card = read_json(self.path / "run.json")
        write_file(self.path, "run.json", _json({**card, **change(card)}), in_place=True)

    def keep_estimate(self, cost: Cost) -> None:
        """Write estimate.json, what the run is expected to take; the first one stands.

        Raises:
            CheckpointError: The disk refused.
        """
        if not is_file(self.path / ESTIMATE_FILE):
            figures = {"minutes": cost.minutes, "memory_gb": cost.memory_gb, "note": cost.note}
            with disk_errors(self.path, "the estimate of the run cannot be written"):
                write_file(self.path, ESTIMATE_FILE, _json(figures))

    def progress_writer(self, seconds: float) -> ProgressWriter:
        """What keeps progress.json; earlier parts of the run took `seconds`."""
        return ProgressWriter(self.path, seconds, self._require)

    def save_state(self, state: RunState, write_parts: Callable[[Path], None]) -> Path:
        """Make a resume point: all of it or none of it.

        Written to a folder next to it, flushed to the disk, checksummed, then renamed to
        `resume/<next stage>-<next cycle>`, with `-<progress>` within a cycle. The last two are
        kept. The lengths of the record files are added to `state`; `write_parts` writes everything
        else that a resumed run needs.

        Raises:
            CheckpointError: The disk refused; earlier resume points are intact.
        """
        root = self.path / "resume"
        within = f"-{state.progress:03d}" if state.progress else ""
        point = root / f"{state.next_stage:03d}-{state.next_cycle:03d}{within}"

        def write(folder: Path) -> None:
            write_parts(folder)
            write_file(folder, "state.json", _json(asdict(state)))
            write_checksums(folder)
            self._require()  # it may have taken long

        with disk_errors(point, "the resume point could not be saved; earlier ones are intact"):
            for writer in self._writers.values():
                writer.sync()
            state.positions = {stem: writer.position() for stem, writer in self._writers.items()}
            replace_folder(self.path, f"resume/{point.name}", write)
            for old in _points(root)[KEPT_POINTS:]:
                shutil.rmtree(old)
            self._seal.add_point()
        return point

    def load_state(self) -> tuple[RunState, Path] | None:
        """Go back to the newest resume point that is whole.

        Record files are cut to the length they had then, so that the rows of the interrupted part
        are not counted twice. Damaged points are passed over and named in `warnings`.

        Returns:
            The state and the folder of its parts; None, with empty record files, if the run never
            reached a resume point.

        Raises:
            CheckpointError: There are resume points, but none is whole or the records are gone.
        """
        points = _points(self.path / "resume")
        for point in points:
            problem, state = damage(point), None
            if problem is None:
                state, problem = _read_state(point / "state.json")
            if state is not None:
                self._seal.cut(state.positions)
                return state, point
            self.warnings.append(f"{point}: damaged ({problem}); the resume point before is used.")
        if points:
            raise CheckpointError(
                f"{self.path / 'resume'}: no resume point is whole, got {'; '.join(self.warnings)} "
                "Restore one from a copy, or start a new run."
            )
        if not self._seal.may_begin_again:
            raise CheckpointError(
                f"{self.path / 'resume'}: no resume point, but there are records, so the folder "
                "was removed. Restore it from a copy, or start a new run."
            )
        self._seal.cut(dict.fromkeys(RECORD_FILES, 0))
        return None

    def keep_folder(self, path: Path, write: Callable[[Path], None]) -> None:
        """Make or replace a folder of the run by what `write` puts in: all of it or none of it.

        Raises:
            CheckpointError: The disk refused; what was there stays.
        """
        self._require()
        name = path.relative_to(self.path).as_posix()
        with disk_errors(path, "this folder could not be written"):
            self._seal.drop_folder(name)  # a kill may come while it is replaced
            replace_folder(self.path, name, write)
            self._seal.add_folder(name)

    def write_samples(self, stage: int, task: str, lines: Iterable[str], cycle: int) -> Path:
        """Write rollouts of a cycle as text for people, control characters escaped.

        Raises:
            CheckpointError: The disk refused.
        """
        name = f"rollouts/{stage:03d}-{cycle:03d}-{file_name(task)}.txt"
        printable = "\n".join(visible(line) for line in "\n".join(lines).split("\n"))
        self._require()
        with disk_errors(self.path / name, "sampled rollouts cannot be written"):
            return write_file(self.path, name, printable + "\n")


def _read_state(path: Path) -> tuple[RunState, None] | tuple[None, str]:
    """The state in a file, or what is wrong with it."""
    try:
        state = shaped(RunState, read_json(path))
        if {*state.positions} != {*RECORD_FILES}:
            raise ValueError(f"positions of {', '.join(RECORD_FILES)} were expected")
    except (OSError, ValueError) as error:
        return None, f"state.json is not usable: {shorten(str(error), 200)}"
    return state, None


def _points(root: Path) -> list[Path]:
    """Resume points, newest first."""
    if not root.is_dir():
        return []
    points = [path for path in root.iterdir() if POINT_NAME.match(path.name)]
    return sorted(points, key=lambda p: tuple(map(int, p.name.split("-"))), reverse=True)


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2) + "\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
