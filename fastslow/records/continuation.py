"""Keys that a run may be continued under with other values, since no result depends on them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastslow.config.loading.load import LoadedConfig, leaves, load_config
from fastslow.core.errors import ConfigError
from fastslow.core.text import shorten
from fastslow.core.types import Json
from fastslow.records.trust import load_run

MEASUREMENTS = (
    "channel_split curve_examples geometry measures neutral prompt_policies proxies reoptimize "
    "route signals"
)
"""Keys of `evaluation` that add figures next to scores, weights and prompts, and change none."""
PLACEMENT = "adapters_dir concurrency managed python retries start_s timeout_s urls"
"""Keys of `engine` that say where servers are and how long they are waited for."""
FREE = (
    "tracking",
    "publish",
    *(f"evaluation.{name}" for name in MEASUREMENTS.split()),
    *(f"engine.{name}" for name in PLACEMENT.split()),
)
REASONS = {
    "name": "it is in the name of the run's folder",
    "runs_dir": "the run's folder is there already",
    "seed": "every random stream is derived from it",
    "model": "the weights are trained on this model, as it runs here",
    "data": "the run goes on with the examples that it began with",
    "tasks": "the run goes on with the examples that it began with",
    "stages": "scores of rows already measured belong to these stages",
    "evaluation.kl_examples": "what the base drew is compared with as many draws in every row",
    "evaluation.routers": "routers rest on what every stage left",
    "evaluation": "scores, or the choice of a prompt, depend on it",
    "engine": "completions depend on it",
    "probe": "its task has no column in the score matrix",
}
"""Why other keys stay: those of a whole section, or of a key in it."""


def differing_keys(before: Mapping[str, Json], after: Mapping[str, Json]) -> list[str]:
    """Dotted keys whose values are not the same in both, or that one of them lacks."""
    keys = dict.fromkeys([*before, *after])
    return [
        key for key in keys if (key in before, before.get(key)) != (key in after, after.get(key))
    ]


def load_continued(run: Path, words: Sequence[str], trust: bool = False) -> LoadedConfig:
    """The configuration of a run that has begun, under overrides that can change no result.

    Raises:
        ConfigError: An override could; one line for each of its keys, with the reason.
        CheckpointError: See `load_run`.
    """
    file = run / "config.json"
    before = load_run(run, trust, words)
    if not words:
        return before
    after = load_config((file,), words)
    old, new = leaves(before.config), leaves(after.config)
    lines = [
        f"resume {key}: cannot change in a run that has begun, got {_text(new, key)}, the run has "
        f"{_text(old, key)}: {_reason(key)}."
        for key in differing_keys(old, new)
        if not _is_within(key, FREE)
    ]
    if lines:
        lines.append(f"Start a new run, or resume without them. Free: {', '.join(FREE)}.")
        raise ConfigError("\n".join(lines))
    return after


def _is_within(key: str, sections: Sequence[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _reason(key: str) -> str:
    names = key.split(".")
    paths = (".".join(names[:size]) for size in range(len(names), 0, -1))
    reasons = (REASONS[path] for path in paths if path in REASONS)
    return next(reasons, "what is learned depends on it")


def _text(values: Mapping[str, Json], key: str) -> str:
    return shorten(json.dumps(values[key]), 60) if key in values else "none"
