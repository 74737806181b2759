"""From files and overrides to a complete, checked run with the provenance of every value."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastslow.config.loading.layers import Layers, merge, read_layers
from fastslow.config.loading.plugins import check_plugins
from fastslow.config.loading.reference import find_keys
from fastslow.config.loading.validate import require
from fastslow.config.loading.yaml_nodes import KeyPath, Node, compose, shown_path
from fastslow.config.models import RunConfig
from fastslow.core.errors import ConfigError
from fastslow.core.types import Json
from fastslow.task.definition import TaskConfig

MOVED = {("fast", "pool"): ("cycle", "pool")}
"""Keys of earlier versions, by section and name, and where they are now."""


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

    Files are YAML or JSON, later ones over earlier ones, and each may extend others; `key=value`
    overrides are laid over them from left to right.

    Raises:
        ConfigError: One line for every mistake: where it was written, its key path, what is wrong
            and what was expected.
    """
    return load_layers(read_layers(files, overrides), overrides)


def load_layers(layers: Layers, overrides: Sequence[str] = ()) -> LoadedConfig:
    """As `load_config`, from what was read and merged already, the overrides included."""
    root = moved(layers.root)
    config = require(RunConfig, root)
    plugins = check_plugins(config, root)
    complete = plugins.complete(config)
    return LoadedConfig(
        config=complete,
        sources=dict(_sources(complete, plugins.root)),
        layers=layers.texts,
        task_params=plugins.task_params,
        overrides=tuple(overrides),
    )


def moved(root: Node) -> Node:
    """The configuration with keys where they are now, for files and runs of earlier versions.

    Raises:
        ConfigError: A key is written at its present place too.
    """
    for (old_section, old), (section, new) in MOVED.items():
        source, target = root.find((old_section,)), root.find((section,))
        if source is None or not isinstance(source.value, dict) or old not in source.value:
            continue
        rest = {name: node for name, node in source.value.items() if name != old}
        present = target.value if target and isinstance(target.value, dict) else {}
        if new in present:
            raise ConfigError(
                f"{source.value[old].origin}: {old_section}.{old} is {section}.{new} now, which is "
                f"set too ({present[new].origin}). Remove {old_section}.{old}."
            )
        value = {**present, new: source.value[old]}
        assert isinstance(root.value, dict)
        origin = target.origin if target else source.origin
        sections = {old_section: Node(rest, source.origin), section: Node(value, origin)}
        root = Node({**root.value, **sections}, root.origin)
    return root


def check_fragment(file: Path) -> None:
    """Check a file that other files extend: as `load_config`, but what it lacks is not missed."""
    root = moved(read_layers((file,), ()).root)
    stand_ins = compose("{name: fragment, stages: [{task: fragment}]}", root.origin)
    config = require(RunConfig, merge(stand_ins, root))
    if not root.find(("stages",)):
        config = config.model_copy(update={"stages": ()})
    check_plugins(config, root)


def load_resolved(path: Path) -> LoadedConfig:
    """Read a run folder's config.json back: `load_config` of that one file."""
    return load_config((path,))


def dump_resolved(config: RunConfig) -> str:
    """The text of config.json: every key, nulls included, in the order of the models."""
    return json.dumps(config.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"


def config_hash(config: RunConfig) -> str:
    """Eight hex digits over everything that determines results.

    `name`, `runs_dir`, `publish` and `tracking` do not: they say where things go; nor does
    `allow_code`.
    """
    places = {"name", "runs_dir", "publish", "tracking", "allow_code"}
    data = config.model_dump(mode="json", exclude=places)
    canonical = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]


def leaves(config: RunConfig | Mapping[str, Json]) -> dict[str, Json]:
    """Every value of a run by its dotted key path; the keys of `LoadedConfig.sources`."""
    data = config if isinstance(config, Mapping) else config.model_dump(mode="json")
    return {shown_path(path): value for path, value, _ in _leaves(data)}


def _leaves(
    value: Any, path: KeyPath = (), kinds: tuple[str, ...] = ()
) -> Iterator[tuple[KeyPath, Any, tuple[str, ...]]]:
    """Values that hold no others, with their paths and the `kind`s of the sections around them."""
    if not (value and isinstance(value, dict | list)):
        yield path, value, kinds
        return
    if isinstance(value, dict) and "kind" in value:
        kinds = (*kinds, value["kind"])
    for part, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield from _leaves(item, (*path, part), kinds)


def _sources(config: RunConfig, root: Node) -> Iterator[tuple[str, str]]:
    """Every key path with where its value was written, or where its default is from."""
    for path, _, kinds in _leaves(config.model_dump(mode="json")):
        around = [path[:size] for size in range(len(path), 0, -1)]
        nodes = [(p, node) for p in around if (node := root.find(p))]
        # a validator may have made several values of one that is written
        written = [n for p, n in nodes if p == path or not isinstance(n.value, dict | list)]
        if written:
            origin = written[0].origin
            yield shown_path(path), "override" if origin.is_override else str(origin)
        else:
            keys = [key for p in around for key in find_keys(RunConfig, p, kinds)[:1]]
            yield shown_path(path), f"default: {next(key.source for key in keys if key.source)}"
