"""Run folders that somebody prepared: what stands in the place of a file, a field or a name."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest

import fastslow
from benchmarks.fuzzing.judging import SECRET, unsafe
from benchmarks.fuzzing.running import EXIT_CODES
from fastslow.cli.main import main
from fastslow.core.errors import CheckpointError, FastSlowError
from fastslow.core.tracker import TrackedRun, Tracker
from fastslow.records.tracking.records import read_run_records
from tests.support.run_folder import report_json, without_seal, write_run
from tests.support.tracking import tracking_of

PATIENCE_S = 120
"""A command that takes longer waits for something; on a busy machine they take a second."""
COMMANDS = (
    "runs RUNS",
    "report RUN --recompute",
    "gate RUN",
    "prompts RUN",
    "watch RUN --once",
    "diff RUN OURS",
    "compare OURS RUN --json",
    "push RUN file://STORE",
)
NAMES = (
    *("run.json", "config.json", "scores.jsonl", "events.jsonl", "seal.json", "data.json"),
    *("deployed.jsonl", "lease/000009", "stages/002-gamma/texts.json"),
    "stages/002-gamma/adapter_model.safetensors",
)
Plant = Callable[[Path, Path], object]


def text(content: str) -> Plant:
    return lambda path, _: path.write_text(content)


def link(target: str) -> Plant:
    return lambda path, outside: path.symlink_to(outside / target)


PLANTS: dict[str, Plant] = {
    "pipe": lambda path, _: os.mkfifo(path),
    "device": link("/dev/zero"),
    "link": link("secret"),
    "linked json": link("secret.json"),
    "folder": lambda path, _: path.mkdir(),
    "null": text("null"),
    "list": text("[1]"),
    "nesting": text("[" * 100_000),
    "number": text('{"a": 1' + "0" * 5000 + "}"),
    "empty": text(""),
    "sparse": lambda path, _: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 40),
}


class Hang(BaseException):
    """No error that a reader of files expects."""


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """A command that waits for ever fails its test."""

    def give_up(*_: object) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(PATIENCE_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the user's own and one that will be prepared, and a file of somebody else."""
    root = tmp_path_factory.mktemp("kept")
    for name in ("ours", "theirs"):
        run = write_run(root / "made")
        report_json(run)
        run.rename(root / name)
    card = json.loads((root / "ours" / "run.json").read_text())
    secrets = dict.fromkeys(card, SECRET) | {SECRET: SECRET, "tasks": [SECRET]}
    (root / "secret").write_text(f"root:{SECRET}\n" * 3)
    (root / "secret.json").write_text(json.dumps(secrets) + "\n")
    return root


@pytest.fixture
def root(kept: Path, tmp_path: Path) -> Path:
    for name in ("ours", "theirs"):
        shutil.copytree(kept / name, tmp_path / "runs" / name)
    return tmp_path


def run_command(command: str, root: Path, name: str = "theirs") -> int:
    runs = root / "runs"
    places = {"RUNS": runs, "RUN": runs / name, "OURS": runs / "ours"}
    words = [str(places.get(word, word)) for word in command.split()]
    return main([word.replace("STORE", str(root / "store")) for word in words])


@pytest.mark.parametrize("name", NAMES)
def test_whatever_stands_in_the_place_of_a_file_is_a_typed_error_and_quoted_by_none(
    name: str, kept: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pipe is not waited for, a device not read, and no file outside of the folder is shown."""
    theirs, turns = root / "runs" / "theirs", islice(cycle(COMMANDS), NAMES.index(name), None)
    without_seal(theirs)  # else it is the seal that refuses
    for plant in PLANTS.values():
        shutil.copytree(theirs, root / "copy")
        path = theirs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        plant(path, kept)
        for command in islice(turns, 2):
            assert run_command(command, root) in EXIT_CODES
            said = "".join(capsys.readouterr())
            assert SECRET not in said
            assert not unsafe(said, longest=len(said))
        shutil.rmtree(theirs)
        (root / "copy").rename(theirs)
    assert not [path for path in root.rglob("*") if path.is_file() and SECRET in read(path)]


def read(path: Path) -> str:
    return path.read_bytes().decode(errors="replace")


@pytest.mark.parametrize("plant", PLANTS)
def test_one_odd_folder_does_not_break_the_list_of_runs(
    plant: str, kept: Path, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("run.json", "scores.jsonl"):
        path = root / "runs" / "theirs" / name
        path.unlink()
        PLANTS[plant](path, kept)
        assert run_command("runs RUNS", root) == 0
        lines = capsys.readouterr().out.splitlines()
        assert any(line.startswith("ours ") and " 3 of 3 " in line for line in lines)
        assert any(line.startswith("theirs ") for line in lines) or plant == "folder"
        shutil.rmtree(root / "runs" / "theirs")
        shutil.copytree(kept / "theirs", root / "runs" / "theirs")


ODD = (
    "\x1b]0;owned\x07",
    "\u202eabc",
    "\ud800",
    "2026-99-99",
    "a\nb",
    "[red]x[/red]",
    None,
    3,
    [1],
)


@pytest.mark.parametrize("field", ["state", "started", "run", "command", "ended"])
def test_no_field_of_a_card_acts_on_a_terminal_or_breaks_a_command(
    field: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root / "runs" / "theirs" / "run.json"
    card, turns = json.loads(path.read_text()), cycle(COMMANDS)
    for value in ODD:
        path.write_text(json.dumps({**card, field: value}))
        for command in ("runs RUNS", next(turns)):
            assert run_command(command, root) in EXIT_CODES
            said = "".join(capsys.readouterr())
            assert not unsafe(said, longest=len(said))


@pytest.mark.parametrize("name", ["\x1b]0;owned\x07", "\u202eabc", os.fsdecode(b"\xff"), "[b]=1+1"])
def test_no_name_of_a_folder_acts_on_a_terminal(
    name: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "runs" / "theirs").rename(root / "runs" / name)
    for command in COMMANDS:
        assert run_command(command, root, name) in EXIT_CODES
        said = "".join(capsys.readouterr())
        assert not unsafe(said, longest=len(said))


@pytest.mark.parametrize("name", ["scores.jsonl", "config.json", "run.json"])
def test_frames_of_a_run_are_of_its_folder_or_typed_errors(
    name: str, kept: Path, root: Path
) -> None:
    frames = ("state", "config", "scores", "events", "metrics", "matrix", "report", "prompts")
    for plant in ("linked json", "nesting"):
        path = root / "runs" / "theirs" / name
        path.unlink()
        PLANTS[plant](path, kept)
        for frame in frames:
            try:
                value = getattr(fastslow.open_run(path.parent), frame)
            except FastSlowError as error:
                value = error
            assert SECRET not in str(value)


class Copies(Tracker):
    """Remembers what it was given to keep a copy of."""

    def __init__(self) -> None:
        self.paths: list[Path] = []

    def artifact(self, path: Path, stage: int | None) -> None:
        self.paths.append(path)


def test_a_tracker_is_given_no_file_from_outside_the_folder(root: Path) -> None:
    theirs, copies = root / "runs" / "theirs", Copies()
    run = TrackedRun(theirs.name, "0" * 32, theirs, {})
    line = {"artifact": str(root / "secret"), "path": "/etc/passwd", "stage": 0}
    (theirs / "tracking.jsonl").write_text(json.dumps(line) + "\n")
    tracking_of(run, copies=copies).send_run()
    assert copies.paths
    assert all(path.resolve().is_relative_to(theirs.resolve()) for path in copies.paths)


@pytest.mark.parametrize("task", ["x/../../../../outside", "/etc", "..", "a/b", 3, None])
def test_a_stage_that_is_named_by_a_path_is_refused(root: Path, task: Any) -> None:
    theirs = without_seal(root / "runs" / "theirs")
    (root / "outside" / "x").mkdir(parents=True)
    card = json.loads((theirs / "run.json").read_text())
    card["stages"] = card["tasks"] = [task, "beta", "gamma"]
    (theirs / "run.json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match="not a plain name"):
        read_run_records(theirs)
    for command in ("gate RUN", "rollback RUN --to 1", "push RUN file://STORE --stage 1"):
        assert run_command(command, root) == 2
    assert not (root / "store").exists()
