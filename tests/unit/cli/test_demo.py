"""`fastslow demo`: what it trains, and what it continues."""

from pathlib import Path

import pytest

from fastslow.cli import demo
from fastslow.cli.main import main
from fastslow.config.loading.load import config_hash, load_config


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What is called instead of fetching a model and running it."""
    made: list[object] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "train", made.append)
    monkeypatch.setattr(demo, "resume", made.append)
    monkeypatch.setattr("fastslow.policy.model_fetch.fetch", lambda name, log: made.append(name))
    return made


def folder(card: str, name: str = "1127-1000-tiny-sft") -> Path:
    """A run of the tiny demonstration's configuration."""
    file, *overrides = demo.TINY
    run = Path("runs") / f"{name}-{config_hash(load_config([Path(file)], overrides).config)}"
    run.mkdir(parents=True)
    (run / "run.json").write_text(card)
    return run


def test_it_trains_the_shipped_configuration_after_fetching_its_model(calls: list[object]) -> None:
    assert main(["demo"]) == 0
    assert calls == ["smollm2-135m-instruct", ["configs/experiments/demo.yaml"]]


@pytest.mark.parametrize("state", ["interrupted", "running"])  # running without a writer: it died
def test_one_that_was_stopped_is_continued(
    state: str, calls: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    run = folder(f'{{"state": "{state}"}}')
    assert main(["demo", "--tiny"]) == 0
    assert calls == ["tiny-random", run]
    assert f"continuing {run}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("card", "name"),
    [
        ('{"state": "finished"}', "1127-1000-tiny-sft"),
        ('{"state": "failed"}', "1127-1000-tiny-sft"),
        ("{", "1127-1000-tiny-sft"),
        ('{"state": "interrupted"}', "1127-1000-other"),
    ],
)
def test_any_other_run_is_left_alone(card: str, name: str, calls: list[object]) -> None:
    folder(card, name)
    assert main(["demo", "--tiny"]) == 0
    assert calls[1] == list(demo.TINY)
