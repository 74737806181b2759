"""Leases on run folders: two machines, one of which sleeps, dies, is skewed or is faster."""

import os
import threading
import time
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import pytest

from fastslow.core.errors import CheckpointError, LeaseError
from fastslow.core.files import append_to
from fastslow.core.processes import start_of
from fastslow.records import lease as leases
from fastslow.records import lock as locks
from fastslow.records.lease import LEASE_S, Lease, claim, newest
from fastslow.records.lock import locked, read_state
from fastslow.records.run_folder import RunDir
from tests.support.run_folder import config

Machine = Callable[[str], None]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Go to another machine, whose system locks do not reach the others'."""

    def go_to(name: str) -> None:
        monkeypatch.setattr(leases, "this_machine", lambda: name)
        monkeypatch.setattr(locks, "LOCK_FILE", f"lock-{name}")

    go_to("first")
    return go_to


def card_path(folder: Path) -> Path:
    card = newest(folder)
    assert card is not None
    return card.path


def sleep_through(folder: Path, seconds: float = LEASE_S + 1) -> None:
    """The last heartbeat was so long ago."""
    path = card_path(folder)
    os.utime(path, (time.time() - seconds, time.time() - seconds))


def run_in(tmp_path: Path) -> RunDir:
    return RunDir.create(config(tmp_path), {}, ())


def test_a_run_is_running_on_every_machine_until_its_heartbeats_stop(
    tmp_path: Path, machine: Machine
) -> None:
    run = run_in(tmp_path)
    machine("second")
    sleep_through(run.path, LEASE_S - 5)
    assert read_state(run.path) == "running"
    with pytest.raises(CheckpointError, match=rf"got lock of process {os.getpid()} on \S+\. One"):
        RunDir.open(run.path)
    sleep_through(run.path)
    assert read_state(run.path) == "died"
    with RunDir.open(run.path):
        assert read_state(run.path) == "running"
        machine("first")
        assert read_state(run.path) == "running"
        run.close()
        assert read_state(run.path) == "running"


def test_a_heartbeat_is_a_sign_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.01)
    with run_in(tmp_path) as run:
        sleep_through(run.path)
        until = time.monotonic() + 60
        while (card := newest(run.path)) and card.is_expired:
            assert time.monotonic() < until, "no heartbeat came"
            time.sleep(0.01)


def test_a_writer_that_slept_through_its_lease_writes_nothing_any_more(
    tmp_path: Path, machine: Machine
) -> None:
    asleep = run_in(tmp_path)
    machine("second")
    sleep_through(asleep.path)
    with RunDir.open(asleep.path) as other:
        before = {path: path.read_bytes() for path in asleep.path.rglob("*") if path.is_file()}
        writes: list[Callable[[], object]] = [
            lambda: asleep.mark("finished"),
            asleep.events.append,
            lambda: asleep.write_samples(0, "task", [], 0),
            lambda: asleep.keep_folder(asleep.path / "stages", lambda _: None),
        ]
        for write in writes:
            with pytest.raises(LeaseError, match="another process writes to this run now, got"):
                write()
        assert LeaseError.exit_code == 1
        asleep.close()  # it takes nothing from the other
        after = {path: path.read_bytes() for path in asleep.path.rglob("*") if path.is_file()}
        assert after == before
        other.mark("finished")
    assert read_state(asleep.path) == "finished"


def test_of_two_that_take_over_at_once_one_wins_whatever_the_order(tmp_path: Path) -> None:
    """Both saw the same dead card; steps of either come in any order, each whole."""
    for index, order in enumerate(permutations("AB")):
        folder = tmp_path / str(index)
        folder.mkdir()
        dead = claim(folder, 1, is_locked=False)
        assert dead is not None
        winners = [name for name in order if claim(folder, 2, is_locked=False)]
        assert winners == [order[0]]
        with pytest.raises(LeaseError):
            dead.require()


def test_of_many_that_take_over_at_once_exactly_one_wins(tmp_path: Path) -> None:
    for number in range(1, 21):
        barrier, won = threading.Barrier(8), list[Lease]()

        def take(number: int, barrier: threading.Barrier, won: list[Lease]) -> None:
            barrier.wait()
            if lease := claim(tmp_path, number, is_locked=False):
                won.append(lease)

        threads = [threading.Thread(target=take, args=(number, barrier, won)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        [winner] = won
        winner.require()
        assert len(list((tmp_path / "lease").iterdir())) == 1
        winner.release()


def test_an_old_look_takes_nothing_from_later_owners(tmp_path: Path) -> None:
    """One saw card 1, slept, and goes on when others have held 2 and hold 3."""
    for number in (1, 2):
        lease = claim(tmp_path, number, is_locked=False)
        assert lease is not None
        lease.release()
    owner = claim(tmp_path, 3, is_locked=False)
    assert owner is not None
    assert claim(tmp_path, 2, is_locked=False) is None
    owner.require()
    card = newest(tmp_path)
    assert card is not None
    assert card.number == 3


def test_clocks_of_machines_may_differ(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_in(tmp_path) as run:
        machine("second")
        for hours in (-5, 5):
            monkeypatch.setattr(time, "time", lambda hours=hours: 1.8e9 + hours * 3600)
            assert read_state(run.path) == "running"


def test_a_process_that_is_gone_is_so_at_once_also_without_system_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "_acquire", lambda *_: "unknown")
    run = run_in(tmp_path)
    assert read_state(run.path) == "running"
    text = card_path(run.path).read_text()
    card_path(run.path).write_text(text.replace(f'"pid": {os.getpid()}', '"pid": 4194304'))
    assert read_state(run.path) == "died"  # no process can have this number
    card_path(run.path).write_text(
        text.replace(f'"start": "{start_of(os.getpid())}"', '"start": "1"')
    )
    assert read_state(run.path) == "died"  # the number is used again
    run.close()


def test_a_released_folder_is_free_and_its_number_is_not_used_again(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        with locked(tmp_path):
            card = newest(tmp_path)
            assert card is not None
            assert (card.number, card.is_released) == (number, False)
    card = newest(tmp_path)
    assert card is not None
    assert card.is_released


def test_a_folder_of_an_older_version_is_read_and_taken(tmp_path: Path) -> None:
    with run_in(tmp_path) as run:
        pass
    card_path(run.path).unlink()
    (run.path / "lease").rmdir()
    (run.path / "lock").write_text("123 on elsewhere\n")
    assert read_state(run.path) == "died"
    with RunDir.open(run.path):
        assert read_state(run.path) == "running"


@pytest.mark.parametrize("content", [b"", b"{", b'{"pid": -1}\n', b"[]\nreleased\n"])
def test_a_damaged_card_is_somebodys_until_it_expires(tmp_path: Path, content: bytes) -> None:
    with run_in(tmp_path) as run:
        pass
    card_path(run.path).write_bytes(content)
    is_free = content.endswith(b"released\n")
    assert read_state(run.path) == ("died" if is_free else "running")
    sleep_through(run.path)
    assert read_state(run.path) == "died"


def test_names_that_are_no_cards_and_links_do_not_hold_a_reader_up(tmp_path: Path) -> None:
    with run_in(tmp_path) as run:
        pass
    with append_to(run.path / "lease" / "notes"):
        pass
    assert read_state(run.path) == "died"
    (run.path / "lease" / "000009").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError):
        read_state(run.path)
