"""The keys of engines: what goes together, and what is refused with its path before any work."""

from pathlib import Path

import pytest

from fastslow.config.engine import highest_rank
from fastslow.config.loading.load import load_config
from fastslow.config.models import RunConfig
from fastslow.core.errors import ConfigError
from fastslow.loop.engine import engine_notes, require_servers
from fastslow.policy.engine.settings import VLLM_RANKS, vllm_rank

RUN = """
name: toy
stages:
  - {task: country_continent}
  - {task: word_valence}
"""


def config_of(folder: Path, *overrides: str) -> RunConfig:
    (folder / "toy.yaml").write_text(RUN)
    return load_config([folder / "toy.yaml"], overrides).config


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("{kind: vllm}", "got neither"),
        ("{kind: vllm, managed: true, urls: [http://127.0.0.1:1]}", "got both"),
        ("{kind: vllm, urls: [http://127.0.0.1:1], python: /x}", "engine.python is for a server"),
        ("{kind: vllm, urls: [127.0.0.1:8000]}", "is no address"),
        ("{kind: vllm, urls: [http://127.0.0.1:80/v1]}", "has a path"),
        ("{kind: vllm, urls: ['http://me:secret@host:80']}", "more than a host and a port"),
        ("{kind: vllm, urls: [http://a:1, http://a:1]}", "an address twice"),
        (
            "{kind: vllm, managed: true, arguments: [--api-key, abc]}",
            "engine.arguments holds a key",
        ),
        ("{kind: vllm, managed: true, arguments: [--trust-remote-code]}", "code of its own"),
        ("{kind: vllm, managed: true, url: x}", "urls"),
        ("{kind: torch, urls: [http://127.0.0.1:1]}", "urls"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(
    tmp_path: Path, engine: str, message: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        config_of(tmp_path, f"engine={engine}")
    assert message in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_loss_that_could_not_be_corrected_is_refused(tmp_path: Path) -> None:
    managed = "engine={kind: vllm, managed: true}"
    with pytest.raises(ConfigError, match=r"slow.temperature \(0.7\) must be 1"):
        config_of(tmp_path, managed, "slow.temperature=0.7")
    assert config_of(tmp_path, "slow.temperature=0.7").slow is not None
    assert config_of(tmp_path, managed, "slow={kind: distill, temperature: 0.7}").slow is not None


@pytest.mark.parametrize(
    ("overrides", "rank"),
    [
        (["slow=null"], 0),
        (["slow.lora.rank=16"], 16),
        (["slow.lora.rank=16", "slow.adapter_policy=merge-then-new"], 48),
        (
            [
                "slow={lora: {rank: 4}, adapter_policy: new-per-stage, remedies: [{kind: merge}]}",
                "tasks={stars: {use: star_graph}}",
                "probe={task: stars}",
            ],
            16,
        ),
    ],
)
def test_the_highest_rank_is_what_stages_add_up_to(
    tmp_path: Path, overrides: list[str], rank: int
) -> None:
    assert highest_rank(config_of(tmp_path, *overrides)) == rank


def test_a_rank_that_no_server_takes_is_refused(tmp_path: Path) -> None:
    words = ["engine={kind: vllm, managed: true}", "slow.adapter_policy=merge-then-new"]
    with pytest.raises(ConfigError, match=r"of rank 512 at most, and this run's comes to have 600"):
        config_of(tmp_path, *words, "slow.lora.rank=200")
    assert vllm_rank(VLLM_RANKS[-1]) == VLLM_RANKS[-1]


def test_an_interpreter_without_vllm_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTSLOW_VLLM_PYTHON", raising=False)
    config = config_of(tmp_path, "engine={kind: vllm, managed: true}")
    with pytest.raises(
        ConfigError, match=r"got .venv-vllm/bin/python: it cannot be started.*make v"
    ):
        require_servers(config)
    empty = tmp_path / "python"
    empty.write_text("#!/bin/sh\nexit 3\n")
    empty.chmod(0o755)
    monkeypatch.setenv("FASTSLOW_VLLM_PYTHON", str(empty))
    with pytest.raises(ConfigError, match=f"got {empty}: it has no vLLM"):
        require_servers(config)


def test_check_says_who_draws(tmp_path: Path) -> None:
    assert engine_notes(config_of(tmp_path)) == []
    [note] = engine_notes(config_of(tmp_path, "engine={kind: vllm, urls: [http://a:1]}"))
    assert note.startswith("engine.kind: vllm: http://a:1 draws the completions, with adapters of")
