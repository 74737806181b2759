"""What a process that was killed leaves of a file or folder is removed, and of no other process."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from fastslow.core.files import replace_folder, unfinished, write_file
from fastslow.records.new_folder import new_folder
from fastslow.results.deploy.export import _new_folder
from tests.support.run_folder import config


def write(folder: Path, *_: object) -> None:
    (folder / "first").write_text("1")
    (folder / "second").write_text("2")


def export(root: Path, fill: Callable[[Path], None]) -> None:
    with _new_folder(root, "export/a") as folder:
        fill(folder)


def killed_within(work: Callable[[], object]) -> None:
    """Do it in another process, which has to be killed by that."""
    if (pid := os.fork()) == 0:
        try:
            work()
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


def kill_me(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write_half(folder: Path, *_: object) -> None:
    (folder / "first").write_text("1")
    kill_me()


FOLDERS: dict[str, Callable[[Path, Callable[..., None]], object]] = {
    "replaced": lambda root, fill: replace_folder(root, "export/a", fill),
    "exported": export,
    "of a run": lambda root, fill: new_folder(config(root / "export"), fill),
}


@pytest.mark.parametrize("make", FOLDERS.values(), ids=FOLDERS)
def test_a_folder_appears_whole_and_nothing_is_left_of_one_that_was_killed(
    make: Callable[[Path, Callable[..., None]], object], tmp_path: Path
) -> None:
    killed_within(lambda: make(tmp_path, write_half))
    [left] = (tmp_path / "export").iterdir()
    assert left.name.startswith(".tmp-")
    make(tmp_path, write)
    [folder] = (tmp_path / "export").iterdir()
    assert folder.name == "a" or folder.name.endswith("-small-" + folder.name[-8:])
    assert sorted(path.name for path in folder.iterdir()) == ["first", "second"]


def test_nothing_is_left_of_a_file_that_was_killed_and_the_old_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_file(tmp_path, "a.json", "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", kill_me)
        killed_within(lambda: write_file(tmp_path, "a.json", "new and longer"))
    assert len(list(tmp_path.iterdir())) == 2
    assert (tmp_path / "a.json").read_text() == "old"
    write_file(tmp_path, "b.json", "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_what_living_processes_and_other_machines_write_stays(tmp_path: Path) -> None:
    ours = unfinished(tmp_path)
    ours.write_text("half")
    _, machine, pid, start, _ = ours.name.split("-")
    others = [
        tmp_path / ours.name.replace(machine, "0" * 12),
        tmp_path / f".tmp-{machine}-{os.getppid()}-x",
        tmp_path / ".tmp-x",
    ]
    gone = tmp_path / ours.name.replace(f"-{start}-", f"-{int(start) + 1}-")
    for path in (*others, gone):
        path.mkdir()
    assert unfinished(tmp_path) != ours
    assert sorted(tmp_path.iterdir()) == sorted([ours, *others])
    assert pid == str(os.getpid())
