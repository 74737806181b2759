"""What every test gets: no network, no colours, and a model cache of its own."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_socket import disable_socket, enable_socket

MEMORY = Path("/dev/shm")
"""Where Linux keeps files in memory."""
ROOM_BYTES = 8 << 30
"""Free bytes there that the files of all tests surely fit in."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep the files of tests in memory where there is room: runs wait for the disk very often."""
    given = config.getoption("basetemp") or os.environ.get("PYTEST_DEBUG_TEMPROOT")
    is_there = MEMORY.is_dir() and os.access(MEMORY, os.W_OK)
    if given is None and is_there and shutil.disk_usage(MEMORY).free >= ROOM_BYTES:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(MEMORY)


@pytest.fixture(autouse=True)
def no_sockets(request: pytest.FixtureRequest) -> Iterator[None]:
    """Sockets fail in every test that is not marked `network`; pipes between processes work."""
    if request.node.get_closest_marker("network"):
        yield
        return
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()


@pytest.fixture
def model_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty model cache, for this test alone."""
    home = tmp_path / "home"
    monkeypatch.setenv("FASTSLOW_HOME", str(home))
    return home
