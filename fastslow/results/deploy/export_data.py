"""The content of an export as plain data; `export_files.py` writes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from fastslow.core.prompts import PromptProgram
from fastslow.policy.model_store import ResolvedModel
from fastslow.results.deploy.standing import Standing, TaskStanding
from fastslow.task.definition import Task, TaskDefinition


@dataclass(frozen=True, slots=True)
class ExportedTask:
    """A task that a stage has visited."""

    standing: TaskStanding
    task: Task
    definition: TaskDefinition
    program: PromptProgram
    """The prompt it is deployed with."""
    adapter: Path | None
    """The stage's folder of its adapter; None where it is deployed with the bare base."""
    question: str
    """Of an example of the test sample; untrusted text."""
    completion: str
    """The run's recorded answer to it; untrusted text."""

    @property
    def name(self) -> str:
        """Its name in the run."""
        return self.standing.task


@dataclass(frozen=True, slots=True)
class Export:
    """A stage's policy, ready to be written."""

    standing: Standing
    tasks: tuple[ExportedTask, ...]
    model_name: str
    """As the configuration has it."""
    base: ResolvedModel
    dtype: str
    """Number format of the weights in the run."""
    template_arguments: Mapping[str, Any]
    """What the run gave the chat template."""
    day: date
    """What the chat template took for today in the run."""
    packages: Mapping[str, str]
    """Versions of the packages the run was made with."""
    router: Mapping[str, float] | None
    """Share of each task's test inputs that the run's router by means sent to that task; None
    without one."""
    is_merged: bool
    """Whether the adapter is folded into a whole model."""

    def adapter_of(self, task: ExportedTask) -> str | None:
        """Folder of a task's adapter relative to the export; None where there is none to load."""
        if self.is_merged or task.adapter is None:
            return None
        is_main = task.adapter == self.standing.folder
        return "." if is_main else f"adapters/{task.name}"

    @property
    def adapters(self) -> dict[str, Path]:
        """Folders of adapters relative to the export, each with the stage's folder of it."""
        sources = {self.adapter_of(task): task.adapter for task in self.tasks}
        return {place: source for place, source in sources.items() if place and source}
