"""An MLflow server on PostgreSQL that dies in the middle of a run: every point arrives once.

Skipped where PostgreSQL, or the package that speaks to it, is absent: `pip install
'fastslow[postgres]'`.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_socket import enable_socket

from fastslow.core.library_switches import SWITCHES
from fastslow.records.tracking.records import read_run_records
from tests.support.paths import ROOT
from tests.support.runs import TOY, newest
from tests.support.servers import free_port

PROGRAMS = [shutil.which(name) for name in ("initdb", "postgres")]
UP_WITHIN_S = 240.0
FIRST_REQUEST = "/api/2.0/mlflow/experiments/search?max_results=1"
"""Has the server open its database, which takes long on a busy machine."""
pytestmark = [
    pytest.mark.network,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(None in PROGRAMS, reason="PostgreSQL (initdb, postgres) is not on the PATH"),
    pytest.mark.skipif(
        importlib.util.find_spec("psycopg") is None, reason="psycopg is not installed"
    ),
]


def as_nobody(folder: Path) -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    os.chown(folder, 65534, 65534)
    return {"user": 65534, "group": 65534, "extra_groups": []}


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address of a fresh PostgreSQL, in a folder that other users may enter."""
    folder = Path(tempfile.mkdtemp(prefix="fastslow-postgres-"))
    settings, port, words = as_nobody(folder), free_port(), {"cwd": "/", "check": True}
    initdb, postgres = map(str, PROGRAMS)
    data = folder / "data"
    init = [initdb, "-D", str(data), "-U", "mlflow", "--auth=trust", "--encoding=UTF8"]
    subprocess.run(init, **settings, **words, stdout=subprocess.DEVNULL)  # type: ignore[call-overload]
    serve = [postgres, "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder)]
    with (folder / "postgres.log").open("wb") as log:
        process = subprocess.Popen(serve, **settings, cwd="/", stdout=log, stderr=log)
    try:
        until(lambda: connects(port))
        yield f"postgresql://mlflow@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(timeout=60)
        shutil.rmtree(folder)


def connects(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def until(is_so: Any) -> None:
    deadline = time.monotonic() + UP_WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not come up"
        time.sleep(0.2)


class Server:
    """`mlflow server` with an artifact store, which can be killed and started again."""

    def __init__(self, database: str, folder: Path) -> None:
        self.port, self.folder = free_port(), folder
        self.uri = f"http://127.0.0.1:{self.port}"
        self._words = ["server", "--backend-store-uri", database]
        self._words += ["--artifacts-destination", f"file://{folder / 'store'}"]
        self._words += ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        self.start()

    def start(self) -> None:
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *self._words],
                env=os.environ | SWITCHES,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self.is_up)

    def is_up(self) -> bool:
        assert self.process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(f"{self.uri}{FIRST_REQUEST}", timeout=120) as answer,
        ):
            return bool(answer.status == 200)
        return False

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def server(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    enable_socket()
    server = Server(database, tmp_path_factory.mktemp("mlflow"))
    yield server
    server.kill()


TRAINER = """
import sys
from itertools import count
from pathlib import Path
from fastslow.channels.slow.grpo import FastSlowTrainer
from fastslow.cli.main import main

inner, calls = FastSlowTrainer.update, count(1)

def update(*args):
    number = next(calls)
    if number in (2, 5):
        Path(f"at-{number}").touch()
        while not Path(f"go-{number}").exists():
            __import__("time").sleep(0.05)
    return inner(*args)

FastSlowTrainer.update = update
sys.exit(main(sys.argv[1:]))
"""
"""A run that waits at its second and its fifth update."""


def fastslow(folder: Path, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "MLFLOW_HTTP_REQUEST_TIMEOUT": "120"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def points_in(database: str) -> tuple[Counter[tuple[str, int]], int]:
    """How often each name has a point at a step over all runs, and how many runs there are."""
    import psycopg

    with contextlib.closing(psycopg.connect(database)) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "SELECT COALESCE((SELECT value FROM tags t WHERE t.run_uuid = m.run_uuid"
            " AND t.key = 'stage'), 'run') || ' ' || m.key, m.step FROM metrics m"
            " WHERE m.key NOT LIKE 'system/%'"
        )
        points = Counter((str(name), int(step)) for name, step in cursor.fetchall())
        cursor.execute("SELECT COUNT(*) FROM runs")
        return points, cursor.fetchone()[0]


def expected(run: Path) -> Counter[tuple[str, int]]:
    """Every point that the records of a run have; a step and a cycle may agree in name and step."""
    records = read_run_records(run)
    points: Counter[tuple[str, int]] = Counter()
    for row in range(len(records.stage_tasks) + 1):
        points.update((f"run {n}", row) for metrics, _ in records.row(row) for n in metrics)
    for part in records.stages():
        for event in part.events:
            step = getattr(event, "step", event.cycle)
            names = [name for name, value in event.metrics.items() if value == value]
            points.update((f"{part.index + 1} {name}", step) for name in names)
    return points


def test_a_server_that_dies_in_the_middle_of_a_run_has_every_point_once(
    server: Server, database: str, tiny_folder: Path, tmp_path: Path
) -> None:
    tracked = f"tracking: {{kind: mlflow, uri: '{server.uri}', experiment: killed}}"
    (tmp_path / "toy.yaml").write_text(TOY.replace("tracking: null", tracked))
    process = fastslow(tmp_path, "-c", TRAINER, "train", "toy.yaml", f"model.name={tiny_folder}")
    until((tmp_path / "at-2").exists)
    server.kill()
    (tmp_path / "go-2").touch()
    until((tmp_path / "at-5").exists)
    server.start()
    (tmp_path / "go-5").touch()
    printed, _ = process.communicate(timeout=600)
    run = newest(tmp_path)
    assert process.returncode == 0, printed[-2000:]
    assert "a call of mlflow failed" in printed
    assert json.loads((run / "tracker.json").read_text())["missed"] == ["mlflow"]
    for _ in range(2):  # the second time changes nothing
        sending = fastslow(tmp_path, "-m", "fastslow", "track", str(run))
        printed, _ = sending.communicate(timeout=600)
        assert sending.returncode == 0, printed[-2000:]
        points, num_runs = points_in(database)
        assert points == expected(run)
        assert num_runs == 3
    print(f"{sum(points.values())} points in {num_runs} MLflow runs, each once")
    stored = {path.name for path in (server.folder / "store").rglob("*") if path.is_file()}
    assert {"report.json", "report.html", "adapter_model.safetensors"} <= stored
