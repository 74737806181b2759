"""One folder per run: what it was made from, what it measured, where it can be resumed.

Owns the names in the folder, the lock, the run's state and the resume points. The content of the
records is `records.py`'s, of the parts of a resume point the loop's. Called by `stages.py` and the
command line; `report/` reads the files without it.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal, Self, TypeAlias, get_args

from fastslow.config.load import config_hash, dump_resolved
from fastslow.config.models import RunConfig
from fastslow.environment import describe_environment
from fastslow.errors import CheckpointError
from fastslow.records import RecordWriter
from fastslow.text import visible
from fastslow.types import Evidence, Json

State: TypeAlias = Literal["running", "finished", "failed", "interrupted"]
STATES: tuple[str, ...] = get_args(State)
"""What `mark` takes. A run that was killed stays "running", but nobody holds its lock."""

RECORD_FILES = ("scores", "events", "metrics")
"""Stems of the append-only files; a resume point remembers how long each was."""
KEPT_POINTS = 2
"""Resume points kept: the newest, and one before it in case the newest is damaged."""
POINT_NAME = re.compile(r"^\d{3,}-\d{3,}$")


@dataclass(slots=True)
class RunState:
    """How far a run has come; changed by the loop, saved with every resume point."""

    next_stage: int = 0
    """Index of the stage to go on with; the number of stages when all are done."""
    next_cycle: int = 0
    """Index of the cycle within it."""
    base_done: bool = False
    """Whether row 0 of the matrix has been measured."""
    rollouts: dict[str, int] = field(default_factory=lambda: {"fast": 0, "slow": 0})
    """Completions sampled so far, by channel."""
    seconds: float = 0.0
    """Wall time spent in the run so far, over all resumes."""
    positions: dict[str, int] = field(default_factory=dict)
    """Bytes of each record file when this was saved; filled by `save_state`."""
    evidence: list[Evidence] = field(default_factory=list)
    """Graded completions of the last slow phase of this stage, if the next fast phase may reuse
    them."""


class RunDir:
    """An open run folder with one writer: this process, until `close`."""

    def __init__(self, path: Path) -> None:
        """Lock the folder and open its record files; use `create` or `open`.

        Raises:
            CheckpointError: Another process writes to it, or it cannot be written.
        """
        self.path = path
        self.warnings: list[str] = []
        """What `load_state` had to pass over, one sentence each."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(_locked(path))
            self.scores, self.events, self.metrics = (
                stack.enter_context(RecordWriter(path / f"{stem}.jsonl")) for stem in RECORD_FILES
            )
            self._resources = stack.pop_all()

    @classmethod
    def create(
        cls,
        config: RunConfig,
        layers: Mapping[str, str],
        command: Sequence[str],
        device: str | None = None,
    ) -> "RunDir":
        """Make `MMDD-HHMM-<name>-<hash>` in `config.runs_dir`, never an existing folder.

        Args:
            config: The run; written fully resolved to `config.json`.
            layers: Text of every file it was read from, by path; copied to `layers/`.
            command: The command line that started it, for the report.
            device: Where the model runs; None writes what the configuration says.

        Raises:
            CheckpointError: The folder cannot be made or written.
        """
        with _disk_errors(Path(config.runs_dir), "a run folder cannot be made here"):
            path = _new_folder(config)
            _write(path / "config.json", dump_resolved(config))
            for index, (name, text) in enumerate(layers.items()):
                (path / "layers").mkdir(exist_ok=True)
                _write(path / "layers" / f"{index:02d}-{_file_name(Path(name).name)}", text)
            environment = describe_environment(device or config.model.device)
            _write(path / "environment.json", _json(environment))
            card: dict[str, Json] = {
                "run": path.name,
                "name": config.name,
                "command": list(command),
                "config_hash": config_hash(config),
                "tasks": list(config.task_names),
                "stages": [stage.task for stage in config.stages],
                "state": "running",
                "started": _now(),
                "ended": None,
            }
            _write(path / "run.json", _json(card))
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunDir":
        """Open an existing run folder for writing, as a resumed run does.

        Raises:
            CheckpointError: It is no run folder, or another process writes to it.
        """
        cls.require(path)
        return cls(path)

    @staticmethod
    def require(path: Path) -> None:
        """Make sure that a run was made in `path`, without opening it.

        Raises:
            CheckpointError: It is no run folder.
        """
        if not (path / "run.json").is_file():
            raise CheckpointError(
                f"{path}: no run folder, got no run.json in it. Known: folders that "
                "`fastslow train` made. Give the path of one of those."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the record files and let another process write here."""
        self._resources.close()

    @property
    def writers(self) -> dict[str, RecordWriter]:
        """The append-only files, by stem."""
        writers = (self.scores, self.events, self.metrics)
        return dict(zip(RECORD_FILES, writers, strict=True))

    def mark(self, state: State) -> None:
        """Write the run's state, and when it ended, to `run.json`.

        Raises:
            CheckpointError: The disk refused; the old state stands.
        """
        with _disk_errors(self.path, "the run's state cannot be written"):
            card = json.loads((self.path / "run.json").read_bytes())
            ended = None if state == "running" else _now()
            _write(self.path / "run.json", _json(card | {"state": state, "ended": ended}))

    def save_state(self, state: RunState, write_parts: Callable[[Path], None]) -> Path:
        """Make a resume point: all of it or none of it.

        Written to a folder beside, flushed to the disk, checksummed, then renamed to
        `resume/<next stage>-<next cycle>`. The last two are kept.

        Args:
            state: How far the run is; the lengths of the record files are added.
            write_parts: Writes everything else a resumed run needs into the folder it is given.

        Returns:
            The folder of the resume point.

        Raises:
            CheckpointError: The disk refused; earlier resume points are intact.
        """
        root = self.path / "resume"
        point = root / f"{state.next_stage:03d}-{state.next_cycle:03d}"
        beside = root / f"tmp-{point.name}"
        with _disk_errors(point, "the resume point could not be saved; earlier ones are intact"):
            for writer in self.writers.values():
                writer.sync()
            state.positions = {stem: writer.position() for stem, writer in self.writers.items()}
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir(parents=True)
            write_parts(beside)
            _write(beside / "state.json", _json(asdict(state)))
            _write(beside / "checksums.json", _json(_checksums(beside)))
            _sync_tree(beside)
            if point.exists():
                shutil.rmtree(point)
            beside.rename(point)
            _sync(root)
            for old in _points(root)[KEPT_POINTS:]:
                shutil.rmtree(old)
        return point

    def load_state(self) -> tuple[RunState, Path] | None:
        """Go back to the newest resume point that is whole.

        Record files are cut to the length they had then, so that what the interrupted part wrote
        is not counted twice. Damaged points are passed over and named in `warnings`.

        Returns:
            The state and the folder of its parts; None, with empty record files, if the run never
            reached a resume point.

        Raises:
            CheckpointError: There are resume points, but none is whole or the records are gone.
        """
        points = _points(self.path / "resume")
        for point in points:
            damage = _damage(point)
            if damage is None:
                state = _state(json.loads((point / "state.json").read_bytes()))
                for stem, writer in self.writers.items():
                    writer.truncate(state.positions[stem])
                return state, point
            self.warnings.append(f"{point}: damaged ({damage}); the resume point before is used.")
        if points:
            raise CheckpointError(
                f"{self.path / 'resume'}: no resume point is whole, got {'; '.join(self.warnings)} "
                "Restore one from a copy, or start a new run."
            )
        for writer in self.writers.values():
            writer.truncate(0)
        return None

    def write_samples(
        self, stage: int, task: str, lines: Iterable[str], cycle: int | None = None
    ) -> Path:
        """Write sampled rollouts as text for people, control characters escaped.

        Args:
            stage: Index of the stage.
            task: The task's name.
            lines: What to show; written one after the other, replacing an earlier file.
            cycle: Index of the cycle, if these are from one.

        Raises:
            CheckpointError: The disk refused.
        """
        when = f"{stage:03d}" if cycle is None else f"{stage:03d}-{cycle:03d}"
        path = self.path / "rollouts" / f"{when}-{_file_name(task)}.txt"
        with _disk_errors(path, "sampled rollouts cannot be written"):
            path.parent.mkdir(exist_ok=True)
            text = "\n".join(lines)
            shown = "\n".join(visible(line) for line in text.split("\n"))
            path.write_text(shown + "\n", encoding="utf-8")
        return path


def _new_folder(config: RunConfig) -> Path:
    stamp = datetime.now().astimezone().strftime("%m%d-%H%M")
    name = f"{stamp}-{config.name}-{config_hash(config)[:8]}"
    root = Path(config.runs_dir)
    root.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


def is_held(path: Path) -> bool:
    """Whether a process, this one or another, writes to the run folder now."""
    try:
        with (path / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the folder's lock; the system lets go of it when the process ends, however it ends."""
    with _disk_errors(path, "the folder cannot be locked"):
        file: IO[str] = (path / "lock").open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise CheckpointError(
                f"{path}: another process writes to this run, got lock of process "
                f"{file.read().strip() or '?'}. One writer at a time: wait for it or end it."
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


@contextlib.contextmanager
def _disk_errors(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{path}: {what}, got {error.strerror or error}. "
            "Check free space and permissions, then resume or start again."
        ) from error


def _state(data: dict[str, Any]) -> RunState:
    evidence = [Evidence(**found) for found in data.get("evidence", ())]
    return RunState(**data | {"evidence": evidence})


def _points(root: Path) -> list[Path]:
    """Resume points, newest first."""
    if not root.is_dir():
        return []
    points = [path for path in root.iterdir() if POINT_NAME.match(path.name)]
    return sorted(points, key=lambda p: tuple(map(int, p.name.split("-"))), reverse=True)


def _checksums(folder: Path) -> dict[str, Json]:
    """SHA-256 of every file under `folder`, by path relative to it."""
    sums: dict[str, Json] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "checksums.json":
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            sums[path.relative_to(folder).as_posix()] = digest
    return sums


def _damage(point: Path) -> str | None:
    """What is wrong with a resume point, None if nothing."""
    try:
        expected = json.loads((point / "checksums.json").read_bytes())
        found = _checksums(point)
    except (OSError, ValueError) as error:
        return f"checksums.json cannot be read: {error}"
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            return f"{name} is {'missing' if name not in found else 'not what was written'}"
    return None


def _write(path: Path, text: str) -> None:
    """Replace `path` by `text`, flushed to the disk before the old content is let go."""
    beside = path.with_name(path.name + ".tmp")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _file_name(text: str) -> str:
    """Text from a configuration as a harmless file name."""
    return re.sub(r"[^A-Za-z0-9_.-]|^\.+", "_", text)[:100] or "_"


def _json(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2) + "\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
