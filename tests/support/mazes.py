"""The module of the task `maze` as the registry loads it.

Loaded a second time under another name, its parameters would lose their descriptions.
"""

import sys
from typing import Any

from fastslow.task.registry import find_task

maze_module: Any = sys.modules[find_task("maze").config_class.__module__]
