"""Paths that no file can have."""

from pathlib import Path

import pytest

from fastslow.core.errors import CheckpointError, ConfigError
from fastslow.policy.engine.vllm.server import interpreter
from fastslow.records.environment import why_not_to_write
from fastslow.records.run_folder import require_no_links
from fastslow.results.report import build_report
from fastslow.results.report.prompt_history import read_prompts

NAMES = ("a\0b", "\ud800", "\0")


@pytest.mark.parametrize("name", NAMES)
def test_a_run_folder_of_such_a_name_is_a_typed_error(name: str) -> None:
    assert why_not_to_write(Path(name)) == "it cannot be written"
    for read in (require_no_links, build_report, lambda path: read_prompts(path, with_seeds=False)):
        with pytest.raises(CheckpointError):
            read(Path(name))


@pytest.mark.parametrize("name", NAMES[:2])
def test_an_interpreter_of_such_a_name_is_a_typed_error(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be started"):
        interpreter(name)
