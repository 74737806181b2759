"""Finding tasks by name: the working directory first, then the shipped copies.

A lookup builds one path and loads one file; nothing is scanned unless the name is missed. Names
are checked before any path is built, so a name can never leave its folder.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastslow.core.errors import TaskError, nearest
from fastslow.core.files import is_file
from fastslow.core.plugins import REFERENCE, from_file, from_module
from fastslow.task.definition import Task, TaskConfig, TaskDefinition

_TASK_NAME = re.compile(r"[a-z0-9_]+")
_PACKAGE = Path(__file__).resolve().parents[1]


def shipped_root() -> Path:
    """The folder that holds the shipped `tasks/` and `configs/`.

    Inside the installed package, or the checkout itself when the package runs from one.
    """
    shipped = _PACKAGE / "shipped"
    return shipped if shipped.is_dir() else _PACKAGE.parent


def task_roots() -> tuple[Path, ...]:
    """Folders in which a task's folder is looked for, in order; each exists."""
    roots = dict.fromkeys([(Path.cwd() / "tasks").resolve(), shipped_root() / "tasks"])
    return tuple(root for root in roots if root.is_dir())


def task_names() -> tuple[str, ...]:
    """Names of all tasks that can be used by folder name, sorted."""
    return tuple(
        sorted(
            {
                file.parent.name
                for root in task_roots()
                for file in root.glob("*/task.py")
                if _TASK_NAME.fullmatch(file.parent.name)
            }
        )
    )


def find_task(use: str) -> TaskDefinition:
    """The definition that `use` names: a folder under tasks/, or `package.module:function`.

    Raises:
        TaskError: The name is malformed or not found, or its module cannot be loaded or does not
            define the task.
    """
    if REFERENCE.fullmatch(use):
        return from_module(TaskDefinition, use)
    return from_file(TaskDefinition, task_folder(use) / "task.py", use)


def build_task(
    name: str,
    use: str | None,
    params: Mapping[str, Any] | TaskConfig | None,
    *,
    allow_code: bool = False,
) -> Task:
    """Build the task that the run calls `name`; `use` is for `find_task`, None being `name`.

    Raises:
        TaskError: It cannot be found or built, or breaks the task contract.
        pydantic.ValidationError: See `TaskDefinition.build`.
    """
    return find_task(use or name).build(name, params, allow_code=allow_code)


def task_folder(name: str) -> Path:
    """The folder of the task called `name`.

    Raises:
        TaskError: The name is malformed, or no folder of that name holds a task.py.
    """
    if not _TASK_NAME.fullmatch(name):
        raise TaskError(
            f"task: got {name!r}. Expected the name of a folder under tasks/ (a-z, 0-9, _) or "
            f"package.module:function.{nearest(name, task_names())}"
        )
    for root in task_roots():
        if is_file(root / name / "task.py"):
            return root / name
    searched = ", ".join(str(root) for root in task_roots()) or "no tasks/ folder"
    raise TaskError(
        f"task: no task.py for {name!r} in {searched}.{nearest(name, task_names())} "
        f"To add it, write tasks/{name}/task.py."
    )
