"""A grid on a Ray cluster of two nodes, one of which is lost in the middle."""

import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from fastslow.cli.main import main
from tests.support import grids
from tests.support.tiny import save_tiny

pytest.importorskip("ray", reason="Ray is not installed: pip install 'fastslow[ray]'")
# an explicit address takes no token from the user's files, and this cluster is its own
grids.ENVIRONMENT |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
pytestmark = [pytest.mark.network, pytest.mark.timeout(1800)]

RAY = [sys.executable, "-m", "ray.scripts.scripts"]
LAST = Path("/tmp/ray/ray_current_cluster")
"""Where Ray remembers the last cluster of this machine."""
LIMITS = ["--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats", "--block"]


@dataclass
class Cluster:
    address: str
    head: subprocess.Popen[bytes]
    second: subprocess.Popen[bytes]


def start_node(log: Path, *words: str) -> subprocess.Popen[bytes]:
    """A node of its own process group: its machine, as far as a kill is concerned."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [*RAY, "start", *words, *LIMITS],
            env=grids.ENVIRONMENT,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def num_nodes(address: str) -> int:
    code = (
        "import ray; ray.init(log_to_driver=False, logging_level='ERROR'); "
        "print(sum(node['Alive'] for node in ray.nodes()))"
    )
    words = [sys.executable, "-c", code]
    environment = grids.ENVIRONMENT | {"RAY_ADDRESS": address}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else 0


def kill_node(node: subprocess.Popen[bytes]) -> None:
    if node.poll() is None:
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    logs = tmp_path_factory.mktemp("ray")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"127.0.0.1:{port}"
    own = ["--node-ip-address=127.0.0.1", "--include-dashboard=false"]
    head = start_node(logs / "head.log", "--head", f"--port={port}", *own)
    try:
        grids.wait_for(lambda: num_nodes(address) == 1)
        second = start_node(logs / "second.log", f"--address={address}")
        try:
            grids.wait_for(lambda: num_nodes(address) == 2)
            yield Cluster(address, head, second)
        finally:
            kill_node(second)
    finally:
        kill_node(head)
        if (LAST.read_text() if LAST.exists() else "").endswith(f":{port}"):
            LAST.unlink()  # nobody is to look for a cluster that is gone


def test_a_cluster_that_is_not_there_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert main(["ablate", grids.FILE, "--launcher", "ray"]) == 2
    assert "the cluster at 127.0.0.1:1 cannot be reached, got " in capsys.readouterr().err


def test_a_node_that_is_lost_changes_nothing_in_the_ablation(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, here, there = save_tiny(tmp_path / "model"), tmp_path / "here", tmp_path / "there"
    local = grids.ablate(here, model)
    assert local.returncode == 0, local.stderr

    monkeypatch.setitem(grids.ENVIRONMENT, "RAY_ADDRESS", cluster.address)
    process = grids.start(there, model, "--launcher", "ray")
    runs = there / "channels-tiny"
    grids.wait_for(lambda: len(list(runs.glob("*-s?-*/scores.jsonl"))) >= 2 or process.poll())
    kill_node(cluster.second)
    printed, errors = process.communicate()
    print(errors)
    assert process.returncode == 0, errors
    assert "died " in errors
    assert set(grids.statuses(there).values()) == {"finished"}
    assert len(grids.statuses(there)) == 6
    assert len(list(runs.glob("*/run.json"))) == 6
    assert grids.result_bytes(there) == grids.result_bytes(here)
    assert "Arms of channels-tiny" in printed


def test_an_interrupt_lets_the_runs_of_the_cluster_save(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(grids.ENVIRONMENT, "RAY_ADDRESS", cluster.address)
    process = grids.start(tmp_path / "runs", save_tiny(tmp_path / "model"), "--launcher", "ray")
    runs = tmp_path / "runs" / "channels-tiny"
    grids.wait_for(lambda: list(runs.glob("*-s?-*/scores.jsonl")) or process.poll())
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "--launcher ray" in errors[errors.index("To continue: ") :]
    states = {
        card.read_text().split('"state": "')[1].split('"')[0] for card in runs.glob("*/run.json")
    }
    assert states <= {"interrupted", "finished"}
