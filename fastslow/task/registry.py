"""Finding tasks by name: the working directory first, then the shipped copies.

A lookup builds one path and loads one file; nothing is scanned unless the name is missed. Names
are checked before any path is built, so a name can never leave its folder.
"""

import hashlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import fastslow
from fastslow.core.errors import FastSlowError, TaskError, nearest
from fastslow.core.files import is_file
from fastslow.core.plugins import REFERENCE, find
from fastslow.core.text import shorten
from fastslow.task.definition import Task, TaskConfig, TaskDefinition

_TASK_NAME = re.compile(r"[a-z0-9_]+")
MODULE_PATHS: dict[str, str] = {}
"""Path of every task.py that was loaded, by the name of its module."""
_PACKAGE = Path(fastslow.__file__).resolve().parent


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
        return find(TaskDefinition, use)
    return _loaded(task_folder(use) / "task.py")


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


@cache
def _loaded(path: Path) -> TaskDefinition:
    """Load one task.py under a module name of its own; once per file and process."""
    name = path.parent.name
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    module_name = f"fastslow_task_{name}_{digest}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    MODULE_PATHS[module_name] = str(path)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[module_name], MODULE_PATHS[module_name]
        if not isinstance(error, Exception) or isinstance(error, FastSlowError):
            raise
        raise TaskError(
            f"{_place(error, path)}: task {name!r} cannot be loaded, got {_words(error)}."
        ) from error
    definitions = [value for value in vars(module).values() if isinstance(value, TaskDefinition)]
    if len(definitions) != 1 or definitions[0].name != name:
        names = [definition.name for definition in definitions]
        raise TaskError(
            f"{path}: expected exactly one @task, named {name!r} like its folder, got {names}. "
            "Rename the task or the folder, and keep one task in a file."
        )
    return definitions[0]


def _place(error: Exception, path: Path) -> str:
    """The file, with the last of its lines that the error went through."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f"{path}:{error.lineno}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {shorten(str(error), 200)}"
