"""Files and runs of earlier versions: keys that have another place now are read there."""

from pathlib import Path

import pytest

from fastslow.config.loading.load import load_config
from fastslow.core.errors import ConfigError

FILE = "name: old\nstages: [{task: word_valence}]\n"


@pytest.mark.parametrize(
    ("text", "overrides", "pool"),
    [
        ("fast: {kind: demos, pool: 16}", (), 16),
        ("fast: {kind: gepa, pool: 16}\ncycle: {problems: 4}", (), 16),
        ("cycle: {problems: 4}", ("fast.pool=16",), 16),
        ("fast: null", (), 32),
    ],
)
def test_the_pool_of_the_fast_channel_is_that_of_the_cycle(
    tmp_path: Path, text: str, overrides: tuple[str, ...], pool: int
) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(f"{FILE}{text}\n")
    config = load_config([file], overrides).config
    assert config.cycle.pool == pool
    assert not hasattr(config.fast, "pool")


@pytest.mark.parametrize(
    ("text", "overrides", "place"),
    [
        ("fast: {kind: demos, pool: 16}\ncycle: {pool: 24}", (), r"old\.yaml:3"),
        ("cycle: {pool: 24}", ("fast.pool=16",), "fast.pool=16"),
    ],
)
def test_a_key_at_both_places_is_refused(
    tmp_path: Path, text: str, overrides: tuple[str, ...], place: str
) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(f"{FILE}{text}\n")
    message = rf"{place}.*: fast\.pool is cycle\.pool now, which is set too \(.*old\.yaml:"
    with pytest.raises(ConfigError, match=message):
        load_config([file], overrides)


def test_a_moved_key_that_is_wrong_is_still_said_where_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(f"{FILE}fast:\n  kind: demos\n  pool: -1\n")
    with pytest.raises(ConfigError, match=r"old\.yaml:5.*cycle\.pool"):
        load_config([file])
