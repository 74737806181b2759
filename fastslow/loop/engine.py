"""What can be known before a run of the engine that it names."""

import os
from pathlib import Path

from fastslow.config.engine import highest_rank
from fastslow.config.models import RunConfig
from fastslow.core.errors import ConfigError, EngineError
from fastslow.core.text import shorten
from fastslow.policy.engine.settings import VllmConfig

ANSWER_S = 10.0
"""Seconds within which a server says what it serves."""


def require_servers(config: RunConfig, path_or_id: str | None = None) -> None:
    """Make sure that what draws completions is there, and has the run's model, given as a path.

    Raises:
        ConfigError: A server does not answer or serves another model, or there is no vLLM to start
            one with.
    """
    engine = config.engine
    if not isinstance(engine, VllmConfig):
        return
    from fastslow.policy.engine.vllm.client import Server  # imports httpx
    from fastslow.policy.engine.vllm.server import KEY_VARIABLE, interpreter

    if engine.managed:
        interpreter(engine.python)
    ours = {config.model.name, Path(path_or_id or config.model.name).name}
    for url in engine.urls:
        server = Server(url, key=os.environ.get(KEY_VARIABLE), timeout_s=ANSWER_S, retries=0)
        try:
            bases = [model for model in server.models() if model.is_base]
        except EngineError as error:
            raise ConfigError(f"engine.urls: {str(error).removeprefix('engine: ')}") from error
        finally:
            server.close()
        names = {name for base in bases for name in (base.name, Path(base.root).name)}
        if not ours & names:
            served = ", ".join(shorten(name, 100) for name in sorted(names)) or "none"
            raise ConfigError(
                f"engine.urls: {url} serves another model than model.name = {config.model.name}. "
                f"Known there: {served}. Start it with the run's model, or under its name with "
                f"--served-model-name {config.model.name}."
            )


def engine_notes(config: RunConfig) -> list[str]:
    """What `fastslow check` says of an engine that is not the trainer."""
    if not isinstance(engine := config.engine, VllmConfig):
        return []
    place = ", ".join(engine.urls) or "a server that the run starts"
    return [
        f"engine.kind: vllm: {place} draws the completions, with adapters of rank "
        f"{highest_rank(config)} at most. The minutes of `cost` are those of engine.kind: torch."
    ]
