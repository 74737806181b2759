"""The state of a run for those who only watch: nothing is taken, nothing is written."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from fastslow.records import lock as locks
from fastslow.records.lease import LEASE_S, newest
from fastslow.records.lock import read_state, watched_state
from fastslow.records.progress_file import ProgressWriter, read_progress
from fastslow.records.run_folder import RunDir
from tests.support.run_folder import config


def files(folder: Path) -> Mapping[str, tuple[int, int]]:
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in folder.rglob("*")}


def test_a_writer_that_lives_is_seen_and_one_that_died_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunDir.create(config(tmp_path), {}, ()) as run_dir:
        run = run_dir.path
        card = newest(run)
        assert card is not None
        before = files(run)
        assert watched_state(run) == "running" == read_state(run)
        monkeypatch.setattr(locks, "_acquire", None)  # a lock that is tried fails the test
        assert watched_state(run) == "running"
        assert files(run).keys() == before.keys()
    assert watched_state(run) == "died"  # it never said how it ended
    (run / "lease" / card.path.name).write_text(
        json.dumps({**_owner(card.path), "pid": 2**22 + 1}) + "\n"
    )
    assert watched_state(run) == "died"


def _owner(path: Path) -> dict[str, object]:
    owner: dict[str, object] = json.loads(path.read_text().splitlines()[0])
    return owner


def test_of_another_machine_the_heartbeats_tell(tmp_path: Path) -> None:
    with RunDir.create(config(tmp_path), {}, ()) as run_dir:
        run = run_dir.path
        card = newest(run)
        assert card is not None
        text = json.dumps({**_owner(card.path), "machine": "another"}) + "\n"
    card.path.write_text(text)
    assert watched_state(run) == "running"
    old = time.time() - LEASE_S - 1
    os.utime(card.path, (old, old))
    assert watched_state(run) == "died"


def test_an_ended_run_and_a_copy_say_what_they_are(tmp_path: Path) -> None:
    with RunDir.create(config(tmp_path), {}, ()) as run_dir:
        run_dir.mark("interrupted")
    assert watched_state(run_dir.path) == "interrupted"
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "run.json").write_text('{"state": "running"}')
    assert watched_state(copy) == "died"
    (copy / "lock").touch()  # of a version without leases
    assert watched_state(copy) == "running"


def test_progress_is_kept_about_once_a_second_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 0.5, 1.25, 9.0])
    monkeypatch.setattr("fastslow.records.progress_file.time.monotonic", lambda: next(clock))
    write = ProgressWriter(tmp_path, 100.0, lambda: None)
    write("slow", "1/5", 1.0, None)
    write("slow", "2/5", 1.5, 8.0)  # too early
    note = read_progress(tmp_path)
    assert note is not None
    assert (note.phase, note.step, note.elapsed_s, note.remaining_s) == ("slow", "1/5", 101.0, None)
    write("slow", "3/5", 2.25, 6.0)
    note = read_progress(tmp_path)
    assert note is not None
    assert (note.step, note.elapsed_s, note.remaining_s) == ("3/5", 102.25, 6.0)
    (tmp_path / "progress.json").unlink()
    (tmp_path / "progress.json").mkdir()
    write("slow", "4/5", 3.0, 1.0)  # the disk refuses
    assert read_progress(tmp_path) is None
