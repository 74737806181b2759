"""A run folder of somebody else is data: no command calls, starts or imports what it names."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fastslow.cli.main import main
from tests.support.run_folder import write_run

TOKEN = "the user's tracking token"
pytestmark = pytest.mark.network

COMMANDS: dict[str, tuple[str, ...]] = {
    "resume": (),
    "probe": ("--task", "word_valence"),
    "track": (),
    "export": (),
    "push": (),
    "signals": (),
    "retention": ("--suite", "none"),
    "report": (),
    "gate": (),
    "prompts": (),
    "rollback": ("--to", "2"),
}
ACTS = ("resume", "probe", "track", "export", "push", "signals", "retention")
"""Those that act on the configuration; the others only read records."""


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Somebody who waits for a call."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


@pytest.fixture
def foreign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: socket.socket
) -> tuple[Path, Path]:
    """A finished run that another user made, and the mark that its code leaves when imported."""
    monkeypatch.setenv("FASTSLOW_HOME", str(tmp_path / "theirs"))
    run, mark = write_run(tmp_path / "runs"), tmp_path / "imported"
    (tmp_path / "planted.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    config = json.loads((run / "config.json").read_text())
    address = f"http://127.0.0.1:{server.getsockname()[1]}"
    for part in prepared(address):
        config |= part
    (run / "config.json").write_text(json.dumps(config))
    (run / "seal.json").unlink()
    monkeypatch.setenv("FASTSLOW_HOME", str(tmp_path / "ours"))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return run, mark


def prepared(address: str) -> list[dict[str, Any]]:
    return [
        {"tracking": {"kind": "mlflow", "uri": address, "experiment": None}},
        {"publish": "s3://theirs/prefix"},
        {"stages": [{"task": "planted:task", "cycles": 1, "slow": True}]},
        {"engine": {"kind": "vllm", "urls": [address]}},
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_follows_what_a_folder_of_somebody_else_names(
    name: str,
    foreign: tuple[Path, Path],
    server: socket.socket,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, mark = foreign
    before = (run / "scores.jsonl").read_bytes()
    code = main([name, str(run), *COMMANDS[name]])
    said = capsys.readouterr().err
    assert not mark.exists()
    with pytest.raises(BlockingIOError):
        server.accept()
    assert (run / "scores.jsonl").read_bytes() == before
    assert TOKEN not in said
    if name in ACTS:
        assert code == 2
        for named in ("tracking.uri", "publish", "stages.0.task", "engine.urls", "--trust"):
            assert named in said


def test_where_the_user_trusts_the_folder_its_code_is_imported(
    foreign: tuple[Path, Path],
) -> None:
    run, mark = foreign
    assert main(["export", str(run), "--trust"]) != 0  # the planted module has no task
    assert mark.exists()
