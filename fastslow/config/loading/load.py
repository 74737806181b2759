"""From files and overrides to a complete, checked run; and back from a run folder's config.json.

Owns the order of the steps and the provenance of every value. Reading is `layers.py`'s, checking
`validate.py`'s and `task_params.py`'s. Called by the command line, before anything heavy is
imported.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from fastslow.config.loading.layers import Layers, read_layers
from fastslow.config.loading.reference import find_key
from fastslow.config.loading.task_params import CheckedTask, check_tasks
from fastslow.config.loading.validate import STAND_INS, Tree, validate
from fastslow.config.loading.yaml_nodes import KeyPath, Mistake, shown_path
from fastslow.config.models import RunConfig, TaskUse
from fastslow.core.errors import ConfigError
from fastslow.core.types import Json
from fastslow.task.definition import TaskConfig


@dataclass(frozen=True)
class LoadedConfig:
    """A checked run with the origin of everything in it."""

    config: RunConfig
    """Complete: `tasks` names every task of the run, with all its parameters."""
    sources: Mapping[str, str]
    """Key path of every leaf to `file:line`, `override`, or `default: ` and where that is from."""
    layers: Mapping[str, str]
    """Path of every file read to its text; a file comes before those it extends."""
    task_params: Mapping[str, TaskConfig]
    """Name of every task of the run to its checked parameters."""
    overrides: tuple[str, ...] = ()
    """The `key=value` texts, in the order given."""


def load_config(files: Sequence[Path], overrides: Sequence[str] = ()) -> LoadedConfig:
    """Read, merge and check a run's configuration, its tasks' parameters included.

    Args:
        files: YAML or JSON files, later ones over earlier ones; each may extend others.
        overrides: `key=value` texts laid over the files from left to right.

    Raises:
        ConfigError: One line for every mistake: where it was written, its key path, what is wrong
            and what was expected.
    """
    return load_layers(read_layers(files, overrides), overrides)


def load_layers(layers: Layers, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Check a run's configuration that was read and merged already; see `load_config`.

    Args:
        layers: What was read; the overrides are in it.
        overrides: Their texts, for the record.

    Raises:
        ConfigError: As in `load_config`.
    """
    tree, tasks, config = _checked(layers, {})
    uses = {t.name: TaskUse(use=t.use, params=t.params.model_dump(mode="json")) for t in tasks}
    complete = config.model_copy(update={"tasks": uses})
    return LoadedConfig(
        config=complete,
        sources=dict(_sources(complete, tree, tasks)),
        layers=layers.texts,
        task_params={task.name: task.params for task in tasks},
        overrides=tuple(overrides),
    )


def check_fragment(file: Path) -> None:
    """Check a file that other files extend: as `load_config`, but what it lacks is not missed.

    Raises:
        ConfigError: As in `load_config`.
    """
    layers = read_layers((file,), ())
    assert isinstance(layers.root.value, dict)
    lacking = {(name,): STAND_INS[name] for name in ("name", "stages")}
    _checked(layers, {p: v for p, v in lacking.items() if p[0] not in layers.root.value})


def load_resolved(path: Path) -> LoadedConfig:
    """Read a run folder's config.json back: `load_config` of that one file.

    Raises:
        ConfigError: It is missing or damaged, or names keys this version does not know.
    """
    return load_config((path,))


def dump_resolved(config: RunConfig) -> str:
    """The text of config.json: every key, nulls included, in the order of the models."""
    return json.dumps(config.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"


def config_hash(config: RunConfig) -> str:
    """Eight hex digits over everything that determines results.

    `name`, `runs_dir` and `tracking` do not: they say where things go; nor does `allow_code`.
    """
    data = config.model_dump(mode="json", exclude={"name", "runs_dir", "tracking", "allow_code"})
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def leaves(config: RunConfig) -> dict[str, Json]:
    """Every value of a run by its dotted key path; the keys of `LoadedConfig.sources`."""
    return {shown_path(path): value for path, value in _leaves(config.model_dump(mode="json"))}


def _checked(
    layers: Layers, put_in: dict[KeyPath, Any]
) -> tuple[Tree, list[CheckedTask], RunConfig]:
    """Check what was read; raises ConfigError with every mistake if there is one."""
    mistakes = list(layers.mistakes)
    if not layers.usable:
        raise ConfigError(_report(mistakes))
    tree = Tree(layers.root, put_in=put_in)
    config = validate(RunConfig, tree, mistakes)
    tasks = check_tasks(tree, mistakes)
    if mistakes:
        raise ConfigError(_report(mistakes))
    assert config is not None, "a configuration without mistakes is valid"
    return tree, tasks, config


def _leaves(value: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Values that hold no others; an empty list or mapping is one."""
    if value and isinstance(value, dict | list):
        for part, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(item, (*path, part))
    else:
        yield path, value


def _sources(
    config: RunConfig, run: Tree, tasks: Sequence[CheckedTask]
) -> Iterator[tuple[str, str]]:
    by_name = {task.name: task for task in tasks}
    values = config.model_dump(mode="json")
    for path, _ in _leaves(values):
        if path[0] == "tasks" and len(path) > 3:
            task = by_name[str(path[1])]
            source = _source(path[3:], task.written, type(task.params), "the task's card")
        else:
            kinds = _kinds(values, path)
            source = _source(path, run, RunConfig, "fastslow/config/models.py", kinds)
        yield shown_path(path), source


def _kinds(values: Any, path: KeyPath) -> list[str]:
    """The `kind` of every section around `path`."""
    kinds = []
    for part in path:
        if isinstance(values, dict) and "kind" in values:
            kinds.append(values["kind"])
        values = values[part]
    return kinds


def _source(
    path: KeyPath,
    tree: Tree,
    model: type[BaseModel],
    unstated: str,
    kinds: Sequence[str] = (),
) -> str:
    """Origin of a leaf, or of the written value that a validator made it from."""
    for size in range(len(path), 0, -1):
        node = tree.find(path[:size])
        if node and (size == len(path) or not isinstance(node.value, dict | list)):
            return "override" if node.origin.is_override else str(node.origin)
    keys = (find_key(model, path[:size], kinds) for size in range(len(path), 0, -1))
    stated = next((key.source for key in keys if key and key.source), unstated)
    return f"default: {stated}"


def _report(mistakes: Sequence[Mistake]) -> str:
    """All mistakes, one a line: by file and line, overrides last."""
    ordered = sorted(mistakes, key=lambda m: (m.origin.is_override, m.origin))
    return "\n".join(str(mistake) for mistake in ordered)
