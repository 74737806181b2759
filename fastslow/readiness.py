"""What this machine lacks for a run: a model's folder, a package of an extra, a key.

`fastslow check` notes it, as a run may be meant for another machine; `train` stops at it.
"""

import importlib.util

from fastslow.config.fast import FastConfig, MiproKeys, ReflectiveBase, SequenceConfig
from fastslow.config.models import RunConfig
from fastslow.errors import ConfigError, ModelError
from fastslow.model_store import MODELS, resolve


def lacking(config: RunConfig) -> list[str]:
    """What a run would stop at here, one sentence or two each; loads no model, asks no network."""
    fast, found = config.fast, []
    if config.model.name not in MODELS:  # those are fetched when they are wanted
        try:
            resolve(config.model.name)
        except ModelError as err:
            found.append(str(err))
    for require in (require_optuna, _require_key):
        try:
            if fast is not None:
                require(fast)
        except ConfigError as err:
            found.append(str(err))
    return found


def require_optuna(fast: FastConfig) -> None:
    """Make sure that the `mipro` optimizer finds the package it searches with.

    Raises:
        ConfigError: It does not.
    """
    steps = fast.steps if isinstance(fast, SequenceConfig) else (fast,)
    uses_it = any(isinstance(step, MiproKeys) for step in steps)
    if uses_it and importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            "fast.kind: mipro searches with the package optuna, which is not installed. "
            "Install it with: pip install 'fastslow[mipro]'"
        )


def _require_key(fast: FastConfig) -> None:
    """Make sure that the key of the reflection LM is in the environment; see `find_key`."""
    if isinstance(fast, ReflectiveBase) and fast.reflection.model != "self":
        from fastslow.channels.endpoints import find_key  # imports dspy

        asked = fast.reflection
        find_key(asked.model, asked.api_base, asked.api_key_env)
