"""The fuzzer's section of folders that were handed over knows every command that takes one."""

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from benchmarks.fuzzing.handed_over import COMMANDS
from fastslow.cli.main import app

OTHERS = {
    *("demo", "init", "train"),
    *("tasks list", "tasks show", "tasks check", "tasks base-rate"),
    *("remedies list", "remedies show"),
    *("models list", "models fetch", "models where"),
}
"""Commands that take no folder of a run or an ablation."""


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that is no group, by its words."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
    for word, part in (inner or {}).items():
        yield from commands(part, f"{name} {word}".strip())


def test_every_command_that_takes_a_folder_is_run_on_those_of_somebody_else() -> None:
    leaves = dict(commands(get_command(app)))
    attacked = {words.split()[0] for words in COMMANDS} - {"open_run"}
    assert attacked | OTHERS == leaves.keys()
    assert not attacked & OTHERS
    for name in OTHERS:
        metavars = [parameter.metavar or "" for parameter in leaves[name].params]
        assert not [m for m in metavars if "RUN" in m or "FOLDER" in m], name
