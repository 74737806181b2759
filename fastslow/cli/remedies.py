"""`remedies list` and `remedies show`."""

import json
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fastslow.cli.arguments import first_line, print_parameters
from fastslow.core.errors import ConfigError, FastSlowError, nearest
from fastslow.core.text import visible

if TYPE_CHECKING:
    from fastslow.channels.slow.remedies.base import RemedyDefinition

app = typer.Typer(help="The remedies against forgetting a run can use.", no_args_is_help=True)

RemedyName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="A shipped kind, a file in remedies/, or package.module:function."
    ),
]


@app.command("list")
def remedies_list() -> None:
    """List the remedies, one a line with what it does; one that cannot be loaded with why."""
    from fastslow.channels.slow.remedies.base import RemedyDefinition
    from fastslow.channels.slow.remedies.shipped import SHIPPED_REMEDIES
    from fastslow.core.plugins import file_names, find

    lines = [(d.name, "shipped", first_line(d.doc)) for d in SHIPPED_REMEDIES.values()]
    for name in file_names(RemedyDefinition):
        try:
            words = first_line(find(RemedyDefinition, name).doc)
        except FastSlowError as error:
            words = f"BROKEN: {visible(str(error))}"
        lines.append((visible(name), visible(f"{RemedyDefinition.folder}/{name}.py"), words))
    widths = [max(len(line[column]) for line in lines) for column in (0, 1)]
    for name, place, words in lines:
        print(f"{name:{widths[0]}}  {place:{widths[1]}}  {words}")


@app.command("show")
def remedies_show(name: RemedyName) -> None:
    """Show a remedy: what it does, its source, its parameters, how a configuration names it."""
    from fastslow.channels.slow.remedies.base import RemedyConfig

    for number, (definition, line) in enumerate(_named(name)):
        print("\n" * (number > 0), end="")
        for text in cleandoc(f"{definition.name}: {definition.doc}").splitlines():
            print(visible(text))
        print(f"source: {visible(definition.source)}")
        print(f"in a configuration: slow: {{remedies: [{visible(line)}]}}")
        assert issubclass(definition.config_class, RemedyConfig), "its decorator requires it"
        print(f"slow.adapter_policy: {' or '.join(definition.config_class.adapter_policies)}")
        print("\nparameters")
        print_parameters(definition.config_class)


def _named(name: str) -> Iterator[tuple["RemedyDefinition", str]]:
    """Every remedy of this name, a shipped one first, and how a list of remedies has it.

    Raises:
        ConfigError: There is none, or it cannot be loaded.
    """
    from fastslow.channels.slow.remedies.base import RemedyDefinition
    from fastslow.channels.slow.remedies.shipped import SHIPPED_REMEDIES
    from fastslow.core.plugins import file_names, find

    shipped = {definition.name: definition for definition in SHIPPED_REMEDIES.values()}
    files = file_names(RemedyDefinition)
    if ":" not in name and name not in (*shipped, *files):
        raise ConfigError(
            f"remedies: no remedy {visible(name)!r} is shipped, or in "
            f"{visible(str(Path.cwd() / RemedyDefinition.folder))}."
            f"{nearest(name, {*shipped, *files})} One elsewhere is package.module:function."
        )
    if name in shipped:
        yield shipped[name], "{" + ", ".join((f"kind: {name}", *_required(shipped[name]))) + "}"
    if ":" in name or name in files:
        definition = find(RemedyDefinition, name)
        use = json.dumps(name) if ":" in name else name
        params = ", ".join(_required(definition))
        yield definition, f"{{kind: custom, use: {use}{f', params: {{{params}}}' * bool(params)}}}"


def _required(definition: "RemedyDefinition") -> Iterator[str]:
    """Parameters without a default, to be filled in."""
    fields = definition.config_class.model_fields.items()
    return (f"{name}: …" for name, field in fields if field.is_required())
