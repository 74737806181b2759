"""A task: three disjoint splits, a seed instruction and a grader, declared in Python.

A task lives in `tasks/<name>/task.py` (or any importable module) as one function decorated with
`@task`, whose only argument is its `TaskConfig`. YAML names the task and sets its parameters.
"""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeAlias

from fastslow.core.errors import FastSlowError, SandboxError, TaskError
from fastslow.core.plugins import PluginConfig, parameter_class
from fastslow.core.types import Example, Grade
from fastslow.task.sandbox import run

Grader: TypeAlias = Callable[[Example, str], Grade]
"""Takes the example and the completion's text; must not raise on any text."""


class TaskConfig(PluginConfig):
    """Parameters of a task. Subclass it; fields are the schema that YAML is checked against."""

    @property
    def variant(self) -> str:
        """Goes behind the version: parameters under which scores cannot be compared with others'.

        Data need not be told here, a run records its fingerprint.
        """
        return ""


@dataclass(frozen=True)
class Task:
    """A distribution of examples with a grader."""

    train: tuple[Example, ...]
    """What channels may see."""
    validation: tuple[Example, ...]
    """What prompt selection and early decisions may see."""
    test: tuple[Example, ...]
    """What only the evaluator may see."""
    instruction: str
    """The seed text: what an untuned user would write, without the list of answers."""
    grade: Grader
    """Score in [0, 1], higher is better."""
    max_tokens: int
    """Limit of one completion, in tokens, the stop token included."""
    name: str = ""
    """The name the run gives this task; set when it is built."""
    version: str = ""
    """`definition@version`, and a variant if it has one; part of every recorded score."""
    notes: tuple[str, ...] = ()
    """What a reader must know about its data, a sentence each; may quote untrusted text."""
    is_ordered: bool = False
    """Whether `train` is in order of time: a run then meets it in that order, once."""

    def __post_init__(self) -> None:
        """Check what every task promises: splits that are not empty, unique ids, no overlap.

        Raises:
            TaskError: A split is empty, an id repeats, or a question is in two splits.
        """
        seen_ids: dict[str, str] = {}
        seen_questions: dict[str, str] = {}
        for split in ("train", "validation", "test"):
            examples: tuple[Example, ...] = getattr(self, split)
            if not examples:
                raise TaskError(
                    f"task {self.name or '?'}: the {split} split is empty. "
                    "Every task needs train, validation and test examples; give it more data."
                )
            for example in examples:
                if example.id in seen_ids:
                    raise TaskError(
                        f"task {self.name or '?'}: example id {example.id!r} is in "
                        f"{seen_ids[example.id]} and again in {split}. Ids must be unique."
                    )
                seen_ids[example.id] = split
                earlier = seen_questions.setdefault(example.question, split)
                if earlier != split:
                    raise TaskError(
                        f"task {self.name or '?'}: the question of {example.id!r} is in {earlier} "
                        f"and in {split}: {example.question[:80]!r}. Scores would measure memory; "
                        "remove it from one of the two."
                    )


@dataclass(frozen=True)
class TaskDefinition:
    """A task function with its name, version and parameter schema; made by `@task`."""

    build_task: Callable[[Any], Task]
    name: str
    version: int
    source: str
    """Where the examples come from, and their licence."""
    config_class: type[TaskConfig]
    requires: tuple[str, ...] = ()
    """Packages it imports that a plain installation may lack."""
    doc: str = field(default="", compare=False)
    runs_code: bool = False
    """Whether its grader runs programs that the policy wrote."""

    noun: ClassVar[str] = "task"
    folder: ClassVar[str] = "tasks"
    error: ClassVar[type[FastSlowError]] = TaskError

    def build(
        self,
        name: str,
        params: Mapping[str, Any] | TaskConfig | None = None,
        *,
        allow_code: bool = False,
    ) -> Task:
        """Build the task under the run's name for it; no `params` are the defaults.

        `allow_code` lets its grader run programs that the policy wrote.

        Raises:
            TaskError: A package it needs is missing, its splits break the contract, or it runs
                programs and that is not allowed, or not possible here.
            pydantic.ValidationError: `params` is plain data that does not fit the schema.
        """
        for package in self.requires:
            if importlib.util.find_spec(package) is None:
                raise TaskError(
                    f"task {name}: needs the package {package!r}, which is not installed. "
                    f"Install it with: pip install {package.replace('_', '-')}"
                )
        if self.runs_code and not allow_code:
            raise TaskError(f"task {name}: {self.asks_for_code}")
        if self.runs_code and (why := run.why_unavailable()):
            raise SandboxError(
                f"task {name}: programs that the policy writes cannot be run safely here: {why}"
            )
        config = (
            params if isinstance(params, TaskConfig) else self.config_class(**dict(params or {}))
        )
        version = f"{self.name}@{self.version}{config.variant}"
        return replace(self.build_task(config), name=name, version=version)

    @property
    def asks_for_code(self) -> str:
        """Why the task needs the user's leave, and how to give it."""
        return (
            "its grader runs programs that the policy writes, in a process without network or "
            "files, see docs/trust.md. Set allow_code to true if you want that."
        )


def task(
    *, name: str, version: int, source: str, requires: tuple[str, ...] = (), runs_code: bool = False
) -> Callable[[Callable[[Any], Task]], TaskDefinition]:
    """Declare a task. The function's annotated `TaskConfig` is its parameter schema.

    The name is its folder's; raise the version when data, instruction or grader change. The rest is
    as in `TaskDefinition`, with import names in `requires`; a task that `runs_code`, as with
    `program_grader`, is built only where the user allows that.

    Raises:
        TypeError: The function does not take exactly one argument annotated with a `TaskConfig`.
    """
    return lambda function: TaskDefinition(
        function,
        name,
        version,
        source,
        parameter_class(function, "task", name, TaskConfig),
        requires,
        function.__doc__ or "",
        runs_code,
    )
