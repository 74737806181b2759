"""What a run needs before it begins: data, a model, packages, a key, signals that may act.

What only this machine lacks `fastslow check` notes, as a run may be meant for another; `train`
stops at it.
"""

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fastslow.channels.fast.settings import (
    FastConfig,
    MiproKeys,
    ReflectiveSettings,
    SequenceConfig,
)
from fastslow.channels.slow.settings import GrpoConfig
from fastslow.config.acting import acting_signals
from fastslow.config.models import RunConfig
from fastslow.core.errors import (
    CheckpointError,
    ConfigError,
    MissingDataError,
    ModelError,
    SandboxError,
    TaskError,
    UnreachableDataError,
    UnreachableModelError,
    nearest,
)
from fastslow.core.text import shorten
from fastslow.loop.engine import engine_notes, require_servers
from fastslow.loop.stream import require_problems
from fastslow.policy.model_store import MODELS, require_reachable, resolve
from fastslow.policy.signals import SIGNALS, signal_of
from fastslow.policy.token_lengths import TaskLengths, TokenCounter
from fastslow.records.publishing import require_publishing
from fastslow.records.tracking.build import require_trackers
from fastslow.records.validity_file import read_verdicts
from fastslow.task.definition import Task
from fastslow.task.registry import build_task

if TYPE_CHECKING:
    from fastslow.policy.policy import Policy  # imports torch


def require_fit(
    policy: "Policy", tasks: Iterable[Task], *, teaches_gold: bool, shows_answer: bool = False
) -> None:
    """Make sure that every prompt and its answer fit under the task's seed text, in all splits.

    A model without a context length takes everything. `teaches_gold`: gold answers are trained on,
    which may be longer than completions. `shows_answer`: training examples are also asked with
    their answer shown, to a teacher or as a hint.

    Raises:
        TaskError: One does not; names the longest, with its tokens and the model's.
    """
    from fastslow.policy.policy import seed_program

    if (limit := policy.context_length) is None:
        return
    for task in tasks:
        text, renderer = seed_program(task), policy.renderer
        frame, least = len(renderer.prompt_ids(text, "")), len(renderer.answer_ids(""))
        worst, tokens = "", 0
        informed = {e.id for e in task.train} if shows_answer else set()
        for example in (*task.train, *task.validation, *task.test):
            size, written = len(example.question.encode()), len(example.answer.encode()) + least
            gold = written if teaches_gold else 0
            # a token is a byte at least, so most need not be counted
            twice = frame + size + written if example.id in informed else 0
            if frame + size + twice + max(task.max_tokens, gold) <= limit:
                continue
            answer = len(renderer.answer_ids(example.answer)) if teaches_gold else 0
            prompt = (
                renderer.informed_ids(text, example.question, example.answer)
                if example.id in informed
                else renderer.prompt_ids(text, example.question)
            )
            needed = len(prompt) + max(task.max_tokens, answer)
            if needed > tokens:
                worst, tokens = example.id, needed
        if tokens > limit:
            raise TaskError(
                f"task {task.name}: example {shorten(worst, 60)!r} needs {tokens} tokens, prompt "
                f"and answer of at most {task.max_tokens} together, but the model reads {limit}. "
                "Take a model with a longer context, shorten the task's instruction or max_tokens, "
                "or leave its long examples out."
            )


def require_hints(policy: "Policy", config: RunConfig, tasks: Mapping[str, Task]) -> None:
    """Make sure that `slow.guidance`, if it gives hints, has answers that are long enough.

    Raises:
        ConfigError: No training answer of any task that trains weights is.
    """
    problem, _ = _judge_hints(config, tasks, policy.renderer.num_tokens)
    if problem:
        raise ConfigError(problem)


def _judge_hints(
    config: RunConfig, tasks: Mapping[str, Task], count: Callable[[str], int]
) -> tuple[str | None, str | None]:
    """A problem where no task that trains weights can be hinted at, a note where only some can."""
    hints = config.slow.hints if isinstance(config.slow, GrpoConfig) else None
    if hints is None:
        return None, None
    names = dict.fromkeys(stage.task for stage in config.stages if stage.slow)
    longest = {name: max(count(example.answer) for example in tasks[name].train) for name in names}
    short = {name: tokens for name, tokens in longest.items() if tokens < hints.min_tokens}
    if not short:
        return None, None
    why = (
        "slow.guidance.kind: hints shows the beginning of gold answers of at least "
        f"slow.guidance.min_tokens = {hints.min_tokens} tokens, and no training answer of these "
        f"tasks is as long: {', '.join(short)}, with at most {max(short.values())}. "
    )
    if len(short) < len(longest):
        return None, why + "Their problems get no hint."
    advice = "Lower slow.guidance.min_tokens, or use slow.guidance.kind: answer."
    return why + advice, None


def require_earned(config: RunConfig) -> None:
    """Make sure that every signal by which the run decides something may do so.

    Raises:
        ConfigError: One has not been shown to tell hard problems from easy ones on this model, and
            is not trusted either; one line for each.
    """
    if problems := list(_unearned(config)):
        raise ConfigError("\n".join(problem for _, problem in problems))


def _unearned(config: RunConfig) -> Iterator[tuple[str, str]]:
    """A key path and a sentence for each signal that may not act."""
    for path, use in acting_signals(config).items():
        if use.trusted:
            continue
        name = signal_of(use)[0]
        if use.kind == "custom" and name in SIGNALS:
            yield (
                f"{path}.use",
                f"{path}.use: {use.use} calls its signal {name!r}, which is the name of a shipped "
                "one, so no report is about it. Give yours another name in its decorator.",
            )
            continue
        trust = f"Set {path}.trusted: true to let it act all the same"
        if use.validity is None:
            yield (
                f"{path}.kind",
                f"{path}: nothing shows that {name} tells hard problems from easy ones on "
                f"{config.model.name}. `fastslow signals RUN` judges the signals of a run: give "
                f"what it wrote as {path}.validity. {trust}.",
            )
        elif problem := _why_unearned(Path(use.validity), name, config.model.name):
            yield f"{path}.validity", f"{path}.validity: {problem} {trust}."


def _why_unearned(file: Path, name: str, model: str) -> str | None:
    """Why a validity report does not let a signal act on a model; None where it does."""
    try:
        report = read_verdicts(file)
    except CheckpointError as error:
        return str(error)
    if report.model != model:
        return (
            f"{file} is about the model {shorten(report.model, 200)}, and this run has {model}. A "
            "signal earns nothing on another model: judge it on this one."
        )
    verdict = report.verdicts.get(name)
    if verdict is None:
        return f"{file} does not judge {name}.{nearest(name, report.verdicts)}"
    if verdict.earned:
        return None
    earned = [verdict.signal for verdict in report.verdicts.values() if verdict.earned]
    names = ", ".join(shorten(signal, 60) for signal in earned[:20]) or "none"
    return (
        f"{name} may not act, {shorten(verdict.reason, 300).rstrip('.')} ({file}). Earned there: "
        f"{names}."
    )


@dataclass
class Inspection:
    """What a configuration's model and data turn out to be, before any work."""

    tasks: dict[str, Task] = field(default_factory=dict)
    """Those that could be built, by name; graders unguarded."""
    lengths: dict[str, TaskLengths] = field(default_factory=dict)
    """Of the tasks, where the model's tokenizer is on this machine."""
    problems: list[tuple[str, str]] = field(default_factory=list)
    """What a run would stop at, each with the key path of what names it."""
    notes: list[str] = field(default_factory=list)
    """What only this machine lacks, and what a run would go on in spite of."""

    def add(self, inspection: "Inspection") -> None:
        """Add what is new in another inspection; the task of a name that both have stays."""
        self.tasks = inspection.tasks | self.tasks
        self.lengths = inspection.lengths | self.lengths
        self.problems += [line for line in inspection.problems if line not in self.problems]
        self.notes += [line for line in inspection.notes if line not in self.notes]


def inspect(config: RunConfig) -> Inspection:
    """Open what a configuration names, its model's tokenizer and all its data; loads no weights."""
    notes = [*engine_notes(config), *lacking(config)]
    inspection = Inspection(problems=list(_unearned(config)), notes=notes)
    names = [*config.task_names, *([config.probe.task] if config.probe else [])]
    for name in names:
        use = config.task_use(name)
        try:
            task = build_task(name, use.use, use.params, allow_code=config.allow_code)
            inspection.tasks[name] = task
        except MissingDataError:
            inspection.notes.append(f"task {name}: no data given; data=PATH has it checked.")
        except (UnreachableDataError, SandboxError) as error:
            inspection.notes.append(_of_task(name, str(error)))
        except TaskError as error:
            lines = str(error).split("\n")
            inspection.problems += ((f"tasks.{name}", _of_task(name, line)) for line in lines)
    if set(names) <= set(inspection.tasks):
        try:
            require_problems(config, inspection.tasks)
        except TaskError as error:
            inspection.problems += (("cycle", line) for line in str(error).split("\n"))
    try:
        folder = _model_folder(config)
    except UnreachableModelError as error:
        folder = None
        inspection.notes.append(str(error))
    except ModelError as error:
        inspection.problems.append(("model.name", str(error)))
        return inspection
    if folder is not None:
        _measure(inspection, folder, config)
    return inspection


def _of_task(name: str, line: str) -> str:
    """A line that begins with the task it is about."""
    beginning = f"task {name}: "
    return line if line.startswith(beginning) else beginning + line


def _measure(inspection: Inspection, folder: Path, config: RunConfig) -> None:
    """Count the tokens of all tasks, and judge them."""
    try:
        counter = TokenCounter(folder)
    except ModelError as error:
        inspection.notes.append(str(error))
        return
    for name, task in inspection.tasks.items():
        inspection.lengths[name] = counter.lengths(task)
        _judge_lengths(inspection, name, inspection.lengths[name])
    if set(config.task_names) <= set(inspection.tasks):
        problem, note = _judge_hints(config, inspection.tasks, counter.tokens)
        inspection.problems += [("slow.guidance.kind", problem)] if problem else []
        inspection.notes += [note] if note else []


def _model_folder(config: RunConfig) -> Path | None:
    """Folder of the model where it is on this machine.

    Raises:
        ModelError: There is no such model, here or on the hub.
    """
    try:
        model = resolve(config.model.name, config.model.revision)
    except ModelError:
        if config.model.name in MODELS:
            return None  # it is known, and fetched when it is wanted
        raise
    if model.local:
        return Path(model.path_or_id)
    return require_reachable(model.path_or_id, model.revision)


def _judge_lengths(inspection: Inspection, name: str, lengths: TaskLengths) -> None:
    if lengths.context is not None and lengths.needed > lengths.context:
        example = lengths.example
        where = shorten(str(example.metadata.get("source", example.id)), 60)
        problem = (
            f"task {name}: example {where!r} needs {lengths.needed:,} tokens at least (instruction "
            f"{lengths.instruction}, question {lengths.question:,}, completion "
            f"{lengths.max_tokens}), but the model reads {lengths.context:,}. Take a model with a "
            "longer context, or cut the task's texts."
        )
        inspection.problems.append((f"tasks.{name}", problem))
    if lengths.answer > lengths.max_tokens:
        inspection.notes.append(
            f"task {name}: the longest gold answer takes {lengths.answer} tokens, more than "
            f"max_tokens = {lengths.max_tokens}: it can never be given. Raise max_tokens."
        )


def lacking(config: RunConfig) -> list[str]:
    """What only this machine lacks for a run, a sentence or two each; loads nothing."""
    fast, problems = config.fast, []
    if config.model.name in MODELS:
        try:
            resolve(config.model.name)
        except ModelError as err:
            problems.append(str(err))
    for require_tool in (require_servers, require_trackers, require_publishing):
        try:
            require_tool(config)
        except ConfigError as err:
            problems.append(str(err))
    for require in (require_optuna, _require_key):
        try:
            if fast is not None:
                require(fast)
        except ConfigError as err:
            problems.append(str(err))
    return problems


def require_optuna(fast: FastConfig) -> None:
    """Make sure that the `mipro` optimizer finds the package it searches with.

    Raises:
        ConfigError: It does not.
    """
    steps = fast.steps if isinstance(fast, SequenceConfig) else (fast,)
    uses_it = any(isinstance(step, MiproKeys) for step in steps)
    if uses_it and importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            "fast.kind: mipro searches with the package optuna, which is not installed. "
            "Install it with: pip install 'fastslow[mipro]'"
        )


def _require_key(fast: FastConfig) -> None:
    """Make sure that the key of the reflection LM is in the environment; see `find_key`."""
    if isinstance(fast, ReflectiveSettings) and fast.reflection.model != "self":
        from fastslow.channels.fast.reflection.endpoint import find_key  # imports dspy

        reflection = fast.reflection
        find_key(reflection.model, reflection.api_base, reflection.api_key_env)
