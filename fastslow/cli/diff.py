"""`diff`: what two configurations say differently."""

import json
from pathlib import Path
from typing import Annotated

import typer

from fastslow.cli.arguments import output, run_folder
from fastslow.core.files import is_folder
from fastslow.core.text import shorten
from fastslow.core.types import Json as Plain

Side = Annotated[Path, typer.Argument(metavar="RUN|FILE", help="A run folder, or a configuration.")]


def diff(first: Side, second: Side) -> None:
    """Show the keys in which two runs or configuration files differ.

    Of a run, what its folder says; a key that an older version did not have is `-` there.
    """
    from fastslow.records.continuation import differing_keys
    from fastslow.results.render.layout import Table, Text
    from fastslow.results.report.terminal import render_tables

    sides = [_leaves(first), _leaves(second)]
    rows = [
        tuple(map(Text, (key, *(_text(side, key) for side in sides))))
        for key in sorted(differing_keys(*sides))
    ]
    if not rows:
        print("No key differs.")
        return
    header = ("key", shorten(str(first), 60), shorten(str(second), 60))
    output().print(render_tables((), [Table("Configurations", header, tuple(rows))]))


def _leaves(path: Path) -> dict[str, Plain]:
    """Every value of a configuration by its dotted key; a run's is read, and nothing it names."""
    from fastslow.config.loading.load import leaves, load_config
    from fastslow.results.reading import read_object

    if not is_folder(path):
        return leaves(load_config([path]).config)
    return leaves(read_object(run_folder(path) / "config.json"))


def _text(values: dict[str, Plain], key: str) -> str:
    return shorten(json.dumps(values[key]), 200) if key in values else "-"
