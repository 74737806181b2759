"""Record files followed while they are written, cut back and written again."""

from pathlib import Path

import pytest

from fastslow.core.errors import CheckpointError
from fastslow.records.events import StepEvent
from fastslow.records.jsonl import RecordWriter, read_records
from fastslow.records.tail import RecordTail


def step(number: int, reward: float = 0.5) -> StepEvent:
    return StepEvent(0, 0, number, {"slow/reward": reward})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_each_look_reads_what_has_come_and_a_half_written_line_waits(path: Path) -> None:
    tail = RecordTail(path)
    assert not tail.look()  # not there yet
    with RecordWriter(path) as writer:
        writer.append(step(1))
        assert tail.look()
        assert not tail.look()
        writer.append(step(2), step(3))
    half = b'{"event": "step", "stage": 0, "cyc'
    with path.open("ab") as file:
        file.write(half)
    assert tail.look()
    assert tail.records == [step(1), step(2), step(3)] == list(read_records(path))
    with RecordWriter(path) as writer:  # cuts the half line off
        writer.append(step(4))
    assert tail.look()
    assert tail.records == list(read_records(path))


@pytest.mark.parametrize("num_after", [1, 2, 3, 9])
def test_a_file_that_was_cut_back_by_a_resume_is_read_again(path: Path, num_after: int) -> None:
    """It may be shorter, as long or longer than before, and differ only in the middle."""
    tail = RecordTail(path)
    with RecordWriter(path) as writer:
        writer.append(step(1))
        position = writer.position()
        writer.append(step(2), step(3))
        tail.look()
        writer.truncate(position)
        writer.append(*(step(number, 0.25) for number in range(2, 2 + num_after)))
    assert tail.look()
    assert tail.records == list(read_records(path))
    assert len(tail.records) == 1 + num_after


def test_a_file_that_goes_or_is_replaced_is_followed(path: Path) -> None:
    tail = RecordTail(path)
    path.write_text('{"event": "run", "state": "finished", "seconds": 1.0}\n')
    assert tail.look()
    path.unlink()
    assert tail.look()
    assert tail.records == []
    path.write_text('{"event": "run", "state": "failed", "seconds": 2.0}\n' * 2)
    assert tail.look()
    assert len(tail.records) == 2


def test_a_damaged_line_is_named_and_read_once_it_is_whole(path: Path) -> None:
    tail = RecordTail(path)
    good = '{"event": "run", "state": "finished", "seconds": 1.0}\n'
    path.write_text(good + "oops\n")
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl:2: not a record, got b'oops"):
            tail.look()
    path.write_text(good * 2)
    tail.look()
    assert len(tail.records) == 2


def test_many_lines_are_read_in_pieces(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastslow.records.tail._PIECE", 300)
    with RecordWriter(path) as writer:
        writer.append(*map(step, range(50)))
    tail = RecordTail(path)
    tail.look()
    assert tail.records == list(read_records(path))
    path.write_text(f'{{"event": "run", "state": "{"x" * 400}", "seconds": 1.0}}\n')
    with pytest.raises(OSError, match="a line of more than 300 bytes"):
        tail.look()
