"""`tasks list`, `tasks show`, `tasks check` and `tasks base-rate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastslow.cli.arguments import first_line, print_parameters
from fastslow.core.errors import ConfigError, MissingDataError, TaskError
from fastslow.core.text import visible

if TYPE_CHECKING:
    from fastslow.config.loading.load import LoadedConfig
    from fastslow.task.definition import Task

_PARAMS = "tasks.task.params."
"""Where parameters stand in the configuration that a task is built from."""

app = typer.Typer(help="The tasks a run can visit.", no_args_is_help=True)

TaskName = Annotated[
    str, typer.Argument(metavar="NAME", help="A folder under tasks/, or package.module:function.")
]
TaskParams = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value]…", help="Parameters of the task.")
]


@app.command("list")
def tasks_list() -> None:
    """List the tasks, one a line with what they ask; one that cannot be loaded with why."""
    from fastslow.task.registry import find_task, task_names

    names = task_names()
    for name in names:
        try:
            words = first_line(find_task(name).doc)
        except TaskError as error:
            words = f"BROKEN: {visible(str(error))}"
        print(f"{name:{max(map(len, names))}}  {words}")


@app.command("show")
def tasks_show(name: TaskName, params: TaskParams = None) -> None:
    """Show a task: parameters, seed instruction, sizes, three examples."""
    from fastslow.task.registry import find_task

    definition = find_task(name)
    print(f"{definition.name}@{definition.version}: {first_line(definition.doc)}")
    print(f"source: {visible(definition.source)}")
    if card := _card(name):
        print(f"card: {visible(str(card))}")
        for line in _section(card, "What it asks"):
            print(f"  {visible(line)}")
    print("\nparameters")
    print_parameters(definition.config_class)
    try:
        task = build_named(name, params or [], allow_code=True)  # nothing is graded here
    except MissingDataError:
        command = visible(f"fastslow tasks show {name} data=PATH")
        print(
            "\nno data given, so there is nothing more to show. PATH is a folder or file of yours:"
        )
        print(f"  to look into it      {command}")
        print("  for all of a run     data: PATH, or data=PATH behind the configuration file")
        use = f"{{use: {visible(name)}, params: {{data: PATH}}}}"
        print(f"  for one of its tasks tasks: {{NAME: {use}}}")
        return
    print(f"\nseed instruction: {visible(task.instruction)}")
    print(f"sizes: train {len(task.train)}, validation {len(task.validation)}, ", end="")
    print(f"test {len(task.test)}; answers of at most {task.max_tokens} tokens")
    print("\nexamples (train)")
    for example in task.train[:3]:
        print(f"  question: {visible(example.question)}\n  answer:   {visible(example.answer)}")


@app.command("check")
def tasks_check(
    name: TaskName,
    params: TaskParams = None,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Let its grader run the programs of its answers.")
    ] = False,
) -> None:
    """Check what every task promises.

    The splits are disjoint, gold answers score 1.0, junk scores 0.0; without parameters also that
    its card fits it.
    """
    from fastslow.task.contract import card_problems, contract_failures

    task = build_named(name, params or [], allow_code)
    failures = list(contract_failures(task))
    if not params and (card := _card(name)):
        failures += card_problems(card, task)
    if failures:
        raise TaskError("\n".join(f"task {task.version}: {failure}" for failure in failures))
    sizes = f"{len(task.train)} train, {len(task.validation)} validation, {len(task.test)} test"
    print(f"{task.version}: splits disjoint ({sizes}), gold answers 1.0, junk 0.0")


@app.command("base-rate")
def tasks_base_rate(
    name: TaskName,
    params: TaskParams = None,
    model: Annotated[str, typer.Option(help="A fetched model, a folder or a hub id.")] = (
        "smollm2-135m-instruct"
    ),
    problems: Annotated[int, typer.Option(min=1, help="Train problems to draw rollouts of.")] = 48,
    group: Annotated[int, typer.Option(min=2, help="Rollouts of each.")] = 8,
    temperature: Annotated[float, typer.Option(min=0.01, help="Of the rollouts.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
    allow_code: Annotated[
        bool, typer.Option("--allow-code", help="Let its grader run the programs of its answers.")
    ] = False,
) -> None:
    """Measure what the base model scores on a task before training, and how often it is rewarded.

    Where no rollout is ever right, reinforcement learning has nothing to learn from. Kept in the
    cache folder, so that asking again costs nothing.
    """
    import json
    from dataclasses import asdict

    from fastslow.loop.base_rate import Draws, base_rate

    loaded = _load_named(name, [*(params or [])], allow_code, model=model)
    draws = Draws(problems=problems, group=group, temperature=temperature)
    rate, is_kept = base_rate(loaded, "task", draws)
    if as_json:
        means = {"greedy": rate.greedy, "reward": rate.reward, "mixed": rate.mixed}
        print(json.dumps(asdict(rate) | means))
        return
    for line in rate.lines():
        print(visible(line))
    if is_kept:
        print("(as measured before)")


def build_named(name: str, params: Sequence[str], allow_code: bool) -> "Task":
    """Build a task with `key=value` parameters, read and checked as those of a run are."""
    from fastslow.task.registry import find_task

    loaded, definition = _load_named(name, params, allow_code), find_task(name)
    return definition.build(definition.name, loaded.task_params["task"], allow_code=allow_code)


def _load_named(
    name: str, params: Sequence[str], allow_code: bool, model: str | None = None
) -> "LoadedConfig":
    """The configuration of a run on nothing but that task, which is called `task` there."""
    from fastslow.config.loading.load import load_config
    from fastslow.task.registry import find_task

    definition = find_task(name)
    if strange := [word for word in params if "=" not in word]:
        raise ConfigError(
            f"tasks: parameters are written key=value, got {visible(strange[0])!r}. "
            f"`fastslow tasks show {visible(name)}` lists them."
        )
    if definition.runs_code and not allow_code:
        raise TaskError(
            f"task {name}: its grader runs programs, which needs --allow-code. They run in a "
            "process without network or files, see docs/trust.md."
        )
    run = [
        "name=task",
        f"allow_code={str(allow_code).lower()}",
        "stages=[{task: task}]",
        f"tasks.task.use={name}",
        *([] if model is None else [f"model.name={model}", "slow=null"]),
    ]
    try:
        return load_config((), [*run, *(f"{_PARAMS}{word}" for word in params)])
    except ConfigError as err:
        raise ConfigError(str(err).replace(_PARAMS, "")) from err  # as they were given


def _card(name: str) -> Path | None:
    """The card of a task that lies in a folder of tasks/; None without one."""
    from fastslow.task.registry import task_folder

    card = None if ":" in name else task_folder(name) / "README.md"
    return card if card and card.is_file() else None


def _section(card: Path, heading: str) -> list[str]:
    """Lines of a card under `## heading`, blank ones left out."""
    text = card.read_text(encoding="utf-8").partition(f"## {heading}\n")[2]
    return [line for line in text.partition("\n## ")[0].splitlines() if line.strip()]
