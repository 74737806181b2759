"""What tests of engines share: a model that is built in code."""

from pathlib import Path

import pytest

from tests.support.tiny import save_tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("tiny-model"))
