"""Plug-ins of the user's own by the name of their file, in the folder of their kind."""

import sys
from pathlib import Path
from typing import Any

import pytest

from fastslow.channels.slow.remedies.base import RemedyDefinition
from fastslow.core.errors import ConfigError
from fastslow.core.plugins import Definition, file_names, find
from fastslow.core.tracker import TrackerDefinition
from fastslow.measure.base import MeasureDefinition
from fastslow.policy.signals import SignalDefinition

KINDS: dict[str, type[Definition[Any]]] = {
    "remedies": RemedyDefinition,
    "signals": SignalDefinition,
    "measures": MeasureDefinition,
    "trackers": TrackerDefinition,
}
SOURCE = '''
from fastslow.plugins import {noun}, {noun_config}


class Config({noun_config}):
    rate: float = 0.5
    """How fast."""


@{noun}(name="{name}", source="{source}")
def build(config: Config) -> float:
    """Does nothing."""
    return config.rate
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, which Python does not import from."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def source(noun: str, name: str = "mine", source: str = "here") -> str:
    config = f"{noun.capitalize()}Config"
    return SOURCE.format(noun=noun, noun_config=config, name=name, source=source)


def write(here: Path, folder: str, name: str, text: str) -> Path:
    file = here / folder / f"{name}.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize("folder", KINDS)
def test_every_kind_is_found_by_the_name_of_its_file(here: Path, folder: str) -> None:
    kind = KINDS[folder]
    write(here, folder, "mine", source(kind.noun))
    definition = find(kind, "mine")
    assert (definition.name, definition.source, definition.build({"rate": 2.0})) == (
        "mine",
        "here",
        2.0,
    )
    for other in KINDS.keys() - {folder}:
        with pytest.raises(ConfigError, match=f"^{KINDS[other].noun}: no mine.py in {here}/"):
            find(KINDS[other], "mine")


def test_a_file_is_loaded_once_and_another_folder_has_another_of_its_name(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here, "remedies", "mine", source("remedy"))
    file = write(here / "other", "remedies", "mine", source("remedy", source="there"))
    first = find(RemedyDefinition, "mine")
    assert find(RemedyDefinition, "mine") is first
    monkeypatch.chdir(here / "other")
    second = find(RemedyDefinition, "mine")
    assert (first.source, second.source) == ("here", "there")
    assert sys.modules[second.config_class.__module__].__file__ == str(file)


@pytest.mark.parametrize(
    "use", ["../up", "a/b", "", "Mine", "a.b", "a:", ":a", "/etc", "a\n", "ü", "_hidden"]
)
def test_a_malformed_name_never_leaves_its_folder(here: Path, use: str) -> None:
    (here / "remedies").mkdir()
    for name in ("up", "remedies/_hidden", "remedies/Mine"):
        (here / f"{name}.py").write_text("raise AssertionError")
    with pytest.raises(ConfigError) as caught:
        find(RemedyDefinition, use)
    assert str(caught.value).startswith(
        f"remedy: got {use!r}. Expected the name of a file in remedies/ (a-z, 0-9, _) or "
        "package.module:function."
    )


def test_a_miss_names_the_folder_and_the_nearest_file(here: Path) -> None:
    write(here, "signals", "sharpness", source("signal", "sharpness"))
    write(here, "signals", "_shared", "raise AssertionError")
    assert file_names(SignalDefinition) == ("sharpness",)
    with pytest.raises(ConfigError) as caught:
        find(SignalDefinition, "sharpnes")
    assert str(caught.value) == (
        f"signal: no sharpnes.py in {here / 'signals'}. Did you mean 'sharpness'? To add it, write "
        "signals/sharpnes.py; a function elsewhere is package.module:function."
    )


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ZeroDivisionError('mine')", "ZeroDivisionError: mine"),
        ("x = (", "SyntaxError: '(' was never closed"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        (
            "from fastslow.plugins import RemedyConfg",
            "ImportError: cannot import name 'RemedyConfg'",
        ),
    ],
)
def test_a_broken_file_is_named_with_its_line_and_leaves_no_module(
    here: Path, code: str, words: str
) -> None:
    file, before = write(here, "remedies", "broken", f"\n{code}"), set(sys.modules)
    for _ in range(2):
        with pytest.raises(ConfigError) as caught:
            find(RemedyDefinition, "broken")
        message = f"{file}:2: remedy 'broken' cannot be loaded, got {words}"
        assert str(caught.value).startswith(message)
    assert not [name for name in set(sys.modules) - before if "broken" in name]
    file.write_text(source("remedy", "broken"))
    assert find(RemedyDefinition, "broken").name == "broken"


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("", r"\[\]"),
        (source("remedy", "other"), r"\['other'\]"),
        (source("signal"), r"\[\]"),
        (
            source("remedy") + "\nalso = remedy(name='two', source='')(build.make)\n",
            r"\['mine', 'two'\]",
        ),
    ],
)
def test_a_file_holds_exactly_the_plug_in_of_its_name(here: Path, text: str, got: str) -> None:
    write(here, "remedies", "mine", text)
    with pytest.raises(ConfigError, match=f"expected exactly one @remedy, named 'mine'.*got {got}"):
        find(RemedyDefinition, "mine")
