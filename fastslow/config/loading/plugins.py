"""Plug-ins that a run names: found, and their parameters checked against their own schemas.

Tasks are named under `tasks` and by the stages; a plug-in of the user's own stands, as
`kind: custom`, wherever `PLACES` lists it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastslow.config.loading.layers import place
from fastslow.config.loading.messages import got, one_line
from fastslow.config.loading.validate import validate
from fastslow.config.loading.yaml_nodes import KeyPath, Mistake, Node, Origin, shown_path
from fastslow.config.models import RunConfig
from fastslow.core.errors import FastSlowError
from fastslow.core.plugins import Definition, PluginConfig, find
from fastslow.core.tracker import TrackerDefinition
from fastslow.task.definition import TaskConfig
from fastslow.task.registry import find_task

PLACES: dict[tuple[str, ...], type[Definition[Any]]] = {("tracking",): TrackerDefinition}
"""Where a configuration takes `kind: custom`, `*` standing for any position in a list, and the
kind of plug-in expected there, e.g. `("slow", "remedies", "*"): RemedyDefinition`."""


@dataclass(frozen=True)
class Plugins:
    """The plug-ins of a run, all found and checked."""

    root: Node
    """What is written, with the run's `data` where a task takes it."""
    params: Mapping[KeyPath, PluginConfig]
    """Parameters with defaults by the path of their section; tasks first, those of stages first."""
    uses: Mapping[KeyPath, str]
    """The definition that each of them uses."""

    @property
    def task_params(self) -> dict[str, TaskConfig]:
        """Parameters of every task, by the run's name for it."""
        return {str(p[1]): v for p, v in self.params.items() if isinstance(v, TaskConfig)}

    def complete(self, config: RunConfig) -> RunConfig:
        """`config` with every parameter stated, and an entry in `tasks` for every task."""
        data = config.model_dump(mode="json")
        data["tasks"] = {name: {} for name in self.task_params}
        for path, params in self.params.items():
            section: Any = data
            for part in path:
                section = section[part]
            section |= {"use": self.uses[path], "params": params.model_dump(mode="json")}
        return RunConfig.model_validate_json(json.dumps(data), strict=True)


def check_plugins(config: RunConfig, root: Node, mistakes: list[Mistake]) -> Plugins:
    """Find every plug-in of the run and check its parameters.

    Args:
        config: The run; its own keys are right.
        root: The same as written.
        mistakes: Receives plug-ins that are not found, wrong parameters, and a `data` override
            without effect.
    """
    checker = _Checker(config, root, mistakes)
    for name in dict.fromkeys([*(stage.task for stage in config.stages), *config.tasks]):
        checker.check_task(name)
    if not mistakes:
        mistakes += checker.data_without_effect()
    for pattern, kind in PLACES.items():
        for path in _instances(root, pattern):
            checker.check_custom(path, kind)
    return Plugins(checker.root, checker.params, checker.uses)


class _Checker:
    def __init__(self, config: RunConfig, root: Node, mistakes: list[Mistake]) -> None:
        self.config, self.root, self.mistakes = config, root, mistakes
        self.params: dict[KeyPath, PluginConfig] = {}
        self.uses: dict[KeyPath, str] = {}
        self.takes_data = False

    def check_custom(self, path: KeyPath, kind: type[Definition[Any]]) -> None:
        use = self.root.find((*path, "use"))
        assert use is not None
        try:
            definition = find(kind, str(use.value))
        except FastSlowError as err:
            self.mistakes.append(Mistake(use.origin, (*path, "use"), one_line(str(err))))
        else:
            self.check_params(path, str(use.value), definition.config_class, use.origin)

    def check_task(self, name: str) -> None:
        section: KeyPath = ("tasks", name)
        use = self.config.task_use(name).use or name
        visits = [stage.task for stage in self.config.stages]
        paths = [(*section, "use"), section]
        if name in visits:
            paths.insert(1, ("stages", visits.index(name), "task"))
        paths = [path for path in paths if self.root.find(path)]
        first, last = (self.root.origin_of(path) for path in (paths[0], paths[-1]))
        try:
            definition = find_task(use)
        except FastSlowError as err:
            self.mistakes.append(Mistake(first, paths[0], one_line(str(err))))
            return
        if definition.runs_code and not self.config.allow_code:
            self.mistakes.append(Mistake(first, paths[0], definition.asks_for_code))
        data = self.root.find(("data",))
        own = self.root.find((*section, "params", "data"))
        if (
            "data" in definition.config_class.model_fields
            and self.config.data is not None
            and (own is None or own.value is None)
        ):
            assert data is not None
            self.takes_data = True
            self.root = place(self.root, (*section, "params", "data"), data, last)
        self.check_params(section, use, definition.config_class, last)

    def check_params(
        self, path: KeyPath, use: str, schema: type[PluginConfig], origin: Origin
    ) -> None:
        """Check the parameters of the section at `path`; `origin` is of one that states none."""
        written = self.root.find((*path, "params")) or Node({}, origin)
        params = validate(schema, written, self.mistakes, (*path, "params"))
        if params is not None:
            self.params[path], self.uses[path] = params, use

    def data_without_effect(self) -> list[Mistake]:
        node = self.root.find(("data",))
        if self.takes_data or node is None or node.value is None or not node.origin.is_override:
            return []
        paths = [(*path, "params", "data") for path in self.params]
        own = [shown_path(path) for path in paths if self.root.find(path)]
        advice = f"Override {', '.join(own)} instead." if own else "Leave it out."
        text = f"no task of this run would read it, got {got(node)}. {advice}"
        return [Mistake(node.origin, ("data",), text)]


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
