"""Ctrl-C at ten moments of the fast phases of every optimizer; a run of each takes seconds."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.fast_phases import FAST, stopped_and_resumed, whole_run

MOMENTS = 10


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> dict[str, Any]:
    """By optimizer, what a run leaves behind that nothing stopped, and its draws."""
    folder = tmp_path_factory.mktemp("whole")
    return {name: whole_run(folder / name, name, tiny_folder) for name in FAST}


@pytest.mark.parametrize("optimizer", FAST)
@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_run_that_was_stopped_in_a_fast_phase_ends_as_if_it_had_not_been(
    whole: dict[str, Any], tmp_path: Path, tiny_folder: Path, optimizer: str, moment: int
) -> None:
    expected, draws = whole[optimizer]
    # threads gather requests into more batches or fewer, but never so many fewer
    draw = 1 + moment * int(0.8 * draws) // (MOMENTS - 1)
    assert stopped_and_resumed(tmp_path, optimizer, tiny_folder, draw) == expected
