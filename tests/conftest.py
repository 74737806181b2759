"""What every test gets: no network, no colours, and a model cache of its own."""

import gc
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_socket import disable_socket, enable_socket

from tests.support.outcomes import Outcome, differences

MEMORY = Path("/dev/shm")
"""Where Linux keeps files in memory."""
ROOM_BYTES = 8 << 30
"""Free bytes there that the files of all tests surely fit in."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep the files of tests in memory where there is room: runs wait for the disk very often.

    Garbage is looked for seldom: what torch and transformers hold is looked through every time.
    """
    gc.set_threshold(50_000, 20, 20)
    given = config.getoption("basetemp") or os.environ.get("PYTEST_DEBUG_TEMPROOT")
    is_there = MEMORY.is_dir() and os.access(MEMORY, os.W_OK)
    if given is None and is_there and shutil.disk_usage(MEMORY).free >= ROOM_BYTES:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(MEMORY)


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Of two runs that should be the same, say where they differ: they are too long to be shown."""
    if op == "==" and isinstance(left, Outcome) and isinstance(right, Outcome):
        return ["one run == the other, which differ in:", *differences(left, right)]
    return None


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
