"""What every test gets: no network, no colours, and a model cache of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_socket import disable_socket, enable_socket


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
