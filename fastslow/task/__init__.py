"""Tasks: definition, registry, graders, splits and data files.

Plug-ins import from here: `from fastslow.task import Task, TaskConfig, task`.
"""

from fastslow.core.types import Example, Grade
from fastslow.task.definition import Task, TaskConfig, task
from fastslow.task.graders import boxed_match, exact_match

__all__ = ["Example", "Grade", "Task", "TaskConfig", "boxed_match", "exact_match", "task"]
