"""The parameters of every task of a run, checked against the task's own schema.

Owns which tasks a run has, and how the run's `data` reaches those that read files. Finding a
definition is the registry's. Called by `load.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from fastslow.config.loading.messages import got, one_line
from fastslow.config.loading.validate import STAND_INS, Tree, validate
from fastslow.config.loading.yaml_nodes import KeyPath, Mistake, Node
from fastslow.core.errors import TaskError
from fastslow.task.definition import TaskConfig
from fastslow.task.registry import find_task


@dataclass(frozen=True)
class CheckedTask:
    """A task of the run whose definition was found and whose parameters hold."""

    name: str
    """The run's name for it."""
    use: str
    """The definition it uses."""
    params: TaskConfig
    """Its parameters, defaults included."""
    written: Tree
    """What was written of them."""
    takes_data: bool
    """Whether the run's `data` was handed to it."""


def check_tasks(run: Tree, mistakes: list[Mistake]) -> list[CheckedTask]:
    """Check every task of the run, those of the stages first, as `RunConfig.task_names` has them.

    Args:
        run: The run as written; it may hold mistakes, which are skipped here.
        mistakes: Receives unknown tasks, wrong parameters, and a `data` override without effect.
    """
    before = len(mistakes)
    data = run.plain()
    visits = dict(_visits(run, data))
    entries = data.get("tasks") if isinstance(data.get("tasks"), dict) else {}
    checked = [
        task
        for name in dict.fromkeys([*visits, *entries])
        if (task := _check_task(name, entries.get(name), visits.get(name), run, mistakes))
    ]
    if len(mistakes) == before:
        mistakes += _data_without_effect(run, checked)
    return checked


def _visits(run: Tree, data: Any) -> Iterator[tuple[str, KeyPath]]:
    """Task names of the stages, last stage first within equal names, with their key paths."""
    stages = data.get("stages")
    seen = set()
    for index, stage in enumerate(stages if isinstance(stages, list) else ()):
        name = stage.get("task") if isinstance(stage, dict) else None
        if isinstance(name, str) and name != STAND_INS["task"] and name not in seen:
            seen.add(name)
            yield name, ("stages", run.position(("stages",), index), "task")


def _check_task(
    name: str, entry: Any, visit: KeyPath | None, run: Tree, mistakes: list[Mistake]
) -> CheckedTask | None:
    here: KeyPath = ("tasks", name)
    if any(path in run.left_out for path in (here, (*here, "use"), (*here, "params"))):
        return None
    use = (entry or {}).get("use") or name
    places = [path for path in ((*here, "use"), visit, here) if path and run.find(path)]
    try:
        definition = find_task(use)
    except TaskError as err:
        mistakes.append(Mistake(run.origin(places[0]), places[0], one_line(str(err))))
        return None
    allowed = run.find(("allow_code",))
    if definition.runs_code and not (allowed and allowed.value is True):
        mistakes.append(Mistake(run.origin(places[0]), places[0], definition.asks_for_code))
    written = run.find((*here, "params")) or Node({}, run.origin(places[-1]))
    assert isinstance(written.value, dict), "RunConfig has checked that params is a mapping"
    params, takes_data = dict(written.value), False
    shared = run.find(("data",))
    if "data" in definition.config_class.model_fields and shared and shared.value is not None:
        takes_data = "data" not in params or params["data"].value is None
        params |= {"data": shared} if takes_data else {}
    tree = Tree(Node(params, written.origin), (*here, "params"))
    config = validate(definition.config_class, tree, mistakes)
    return CheckedTask(name, use, config, tree, takes_data) if config else None


def _data_without_effect(run: Tree, checked: Sequence[CheckedTask]) -> list[Mistake]:
    node = run.find(("data",))
    is_used = any(task.takes_data for task in checked)
    if node is None or node.value is None or is_used or not node.origin.is_override:
        return []
    own = [f"tasks.{task.name}.params.data" for task in checked if task.written.find(("data",))]
    advice = f"Override {', '.join(own)} instead." if own else "Leave it out."
    text = f"no task of this run would read it, got {got(node)}. {advice}"
    return [Mistake(node.origin, ("data",), text)]
