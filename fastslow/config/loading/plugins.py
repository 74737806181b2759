"""Plug-ins that a run names: found, and their parameters checked against their own schemas."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastslow.channels.slow.remedies.base import RemedyConfig, RemedyDefinition
from fastslow.config.loading.layers import place
from fastslow.config.loading.messages import got, one_line
from fastslow.config.loading.validate import validate
from fastslow.config.loading.yaml_nodes import KeyPath, Mistake, Node, refuse, shown_path
from fastslow.config.models import RunConfig
from fastslow.core.errors import FastSlowError
from fastslow.core.plugins import Definition, PluginConfig, find
from fastslow.core.tracker import TrackerDefinition
from fastslow.measure.base import MeasureDefinition
from fastslow.policy.signals import SignalDefinition
from fastslow.task.definition import TaskConfig, TaskDefinition
from fastslow.task.registry import find_task

PLACES: dict[tuple[str, ...], type[Definition[Any]]] = {
    ("slow", "remedies", "*"): RemedyDefinition,
    ("fast", "demonstration_signal"): SignalDefinition,
    ("fast", "steps", "*", "demonstration_signal"): SignalDefinition,
    ("slow", "difficulty", "signal"): SignalDefinition,
    ("slow", "guidance", "signal"): SignalDefinition,
    ("evaluation", "route", "signal"): SignalDefinition,
    ("evaluation", "signals", "*"): SignalDefinition,
    ("evaluation", "measures", "*"): MeasureDefinition,
    ("tracking",): TrackerDefinition,
    ("tracking", "*"): TrackerDefinition,
}
"""Where a configuration takes `kind: custom`, `*` standing for any position in a list, and the
kind of plug-in expected there."""


@dataclass(frozen=True)
class Plugins:
    """The plug-ins of a run, all found and checked."""

    root: Node
    """What is written, with the run's `data` in the parameters of the tasks that take it."""
    checked: Mapping[KeyPath, tuple[str, PluginConfig]]
    """By the path of its section, each one's name and parameters; tasks first, as in the stages."""

    @property
    def task_params(self) -> dict[str, TaskConfig]:
        """Parameters of every task, by the run's name for it."""
        checked = self.checked.items()
        return {str(path[1]): p for path, (_, p) in checked if isinstance(p, TaskConfig)}

    def complete(self, config: RunConfig) -> RunConfig:
        """`config` with every parameter stated, and an entry in `tasks` for every task."""
        data = config.model_dump(mode="json")
        data["tasks"] = {name: {} for name in self.task_params}
        for path, (use, params) in self.checked.items():
            section: Any = data
            for part in path:
                section = section[part]
            section |= {"use": use, "params": params.model_dump(mode="json")}
        return RunConfig.model_validate_json(json.dumps(data), strict=True)


@dataclass(frozen=True)
class _Use:
    """A place where a plug-in is named."""

    section: KeyPath
    name: str
    find: Callable[[str], Definition[Any] | TaskDefinition]
    named_at: KeyPath
    """Where the name is written, for what is wrong with it."""


def check_plugins(config: RunConfig, root: Node) -> Plugins:
    """Find every plug-in of the run, whose own keys are right, and check its parameters.

    Raises:
        ConfigError: One line for every plug-in that is not found, every wrong parameter, and a
            `data` override without effect.
    """
    mistakes: list[Mistake] = []
    checked: dict[KeyPath, tuple[str, PluginConfig]] = {}
    data = root.find(("data",)) if config.data is not None else None
    takes_data = False
    for use in (*_tasks(config, root), *_custom(root)):
        try:
            definition = use.find(use.name)
        except FastSlowError as err:
            text = one_line(str(err))
            mistakes.append(Mistake(root.origin_of(use.named_at), use.named_at, text))
            continue
        path = (*use.section, "params")
        origin = root.origin_of(use.section if root.find(use.section) else use.named_at)
        if misfit := _misfit(definition, config):
            mistakes.append(Mistake(root.origin_of(use.named_at), use.named_at, misfit))
        is_task = isinstance(definition, TaskDefinition)
        if is_task and data and "data" in definition.config_class.model_fields:
            stated = root.find((*path, "data"))
            if stated is None or stated.value is None:
                takes_data = True
                root = place(root, (*path, "data"), data, origin)
        written = root.find(path) or Node({}, origin)
        params = validate(definition.config_class, written, mistakes, path)
        if params is not None:
            checked[use.section] = use.name, params
    if data and data.origin.is_override and not (mistakes or takes_data):
        paths = [path for section in checked if root.find(path := (*section, "params", "data"))]
        others = ", ".join(map(shown_path, paths))
        advice = f"Override {others} instead." if paths else "Leave it out."
        text = f"no task of this run would read it, got {got(data)}. {advice}"
        mistakes.append(Mistake(data.origin, ("data",), text))
    refuse(mistakes)
    return Plugins(root, checked)


def _misfit(definition: Definition[Any] | TaskDefinition, config: RunConfig) -> str | None:
    """Why a plug-in is not for this run, whatever its parameters; None where it is."""
    if isinstance(definition, TaskDefinition):
        return definition.asks_for_code if definition.runs_code and not config.allow_code else None
    parameters = definition.config_class
    if not issubclass(parameters, RemedyConfig):
        return None
    return config.why_unfit(definition.name, parameters)


def _tasks(config: RunConfig, root: Node) -> Iterator[_Use]:
    """Every task, those of the stages first."""
    visits = [stage.task for stage in config.stages]
    for name in dict.fromkeys([*visits, *config.tasks]):
        visit = [("stages", visits.index(name), "task")] if name in visits else []
        paths: list[KeyPath] = [("tasks", name, "use"), *visit, ("tasks", name)]
        named_at = next(path for path in paths if root.find(path))
        yield _Use(("tasks", name), config.task_use(name).use or name, find_task, named_at)


def _custom(root: Node) -> Iterator[_Use]:
    for pattern, kind in PLACES.items():
        for path in _instances(root, pattern):
            use = root.find((*path, "use"))
            assert use is not None, "RunConfig requires it"
            yield _Use(path, str(use.value), partial(find, kind), (*path, "use"))


def _instances(node: Node, pattern: tuple[str, ...], path: KeyPath = ()) -> Iterator[KeyPath]:
    """Paths of the sections that fit `pattern` and are `kind: custom`."""
    if not pattern:
        kind = node.find(("kind",))
        if kind is not None and kind.value == "custom":
            yield path
    elif pattern[0] == "*" and isinstance(node.value, list):
        for index, item in enumerate(node.value):
            yield from _instances(item, pattern[1:], (*path, index))
    elif inner := node.find(pattern[:1]):
        yield from _instances(inner, pattern[1:], (*path, pattern[0]))
