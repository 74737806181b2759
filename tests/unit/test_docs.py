"""Commands, links and modules that the documents name must exist."""

import importlib.util
import itertools
import re
import shlex
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from pydantic import ValidationError

from fastslow.cli.main import app, main
from fastslow.config.loading.reference import reference
from fastslow.core.keys import OURS
from fastslow.task.contract import contract_failures
from tests.support.paths import ROOT

GUIDE = [ROOT / "docs" / "index.md", *sorted(ROOT.glob("docs/guide/*.md"))]
DOCUMENTS = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *GUIDE})
PROGRAMS = ("fastslow", "make", "python")


def whole_commands(document: Path) -> list[str]:
    """Shell commands of a document that stand in its shell blocks."""
    text = document.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ").strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.split(" ")[0] in PROGRAMS]


def commands(document: Path) -> list[str]:
    """Those, and inline code that is one, where arguments may be left out."""
    text = document.read_text(encoding="utf-8")
    inline = re.findall(r"`((?:fastslow|make|python -m) [^`\n…][^`\n]*)`", text)
    return [*whole_commands(document), *inline]


def all_commands() -> list[Any]:
    return [
        pytest.param(command, id=f"{document.name}: {command}")
        for document in DOCUMENTS
        for command in dict.fromkeys(commands(document))
    ]


def parse(words: list[str], *, is_whole: bool) -> None:
    """Have the command line's own parser take the words apart; nothing is called.

    Raises:
        Exception: There is no such command or option, or a value is of the wrong kind; where the
            command `is_whole`, an argument lacks.
    """
    command: Any = typer.main.get_command(app)
    while hasattr(command, "resolve_command") and words and not words[0].startswith("-"):
        _, command, words = command.resolve_command(command.context_class(command), words)
    context = command.context_class(command)
    values, rest, _ = command.make_parser(context).parse_args(list(words))
    assert rest == []
    for parameter in command.params:
        value = values.get(parameter.name)
        if value and not re.search(r"\b[A-Z]{3,}\b", str(value)):  # else the reader's to fill in
            parameter.get_runtime_param().coerce(value, param=parameter, ctx=context)
        assert value or not parameter.required or not is_whole, parameter.name


READERS = (["tickets.yaml"], ["urgency.yaml"], ["doubling.yaml"], ["gentle.yaml"], ["signals.yaml"])
"""Files that a page has the reader write; tests/integration/cli/test_guide.py does."""


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("command", all_commands())
def test_every_documented_command_exists(command: str) -> None:
    program, *words = shlex.split(command, comments=True)
    if program == "make":
        assert {word for word in words if "=" not in word} <= make_targets()
    elif program == "python":
        assert words[0] == "-m"
        assert importlib.util.find_spec(words[1]) is not None
    else:
        is_whole = any(command in whole_commands(document) for document in DOCUMENTS)
        ours = itertools.takewhile(lambda word: word not in ("|", ">", "&&"), words)
        parse([word for word in ours if word != "--traceback"], is_whole=is_whole)
        files = [word for word in words if word.endswith((".yaml", ".yml"))]
        assert [file for file in files if not (ROOT / file).is_file()] in ([], *READERS)


@pytest.mark.parametrize(
    "command",
    [p for p in all_commands() if re.match(r"fastslow (train|check) configs/", p.values[0])],
)
def test_every_documented_configuration_is_valid_with_its_overrides(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(command, comments=True)[2:]
    theirs = [word for word in words if word.isupper() or word.startswith(("data=", "model.name="))]
    assert main(["check", *(word for word in words if word not in theirs)]) == 0


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_of_the_repository_leads_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
    local = [target for target in targets if "://" not in target]
    assert [t for t in local if not (document.parent / t).exists()] == []


def test_every_module_that_methods_names_exists() -> None:
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    modules = set(re.findall(r"`(fastslow/[\w/]+\.py)`", text))
    assert len(modules) >= 5
    assert [name for name in sorted(modules) if not (ROOT / name).is_file()] == []


def test_every_default_that_is_ours_has_its_reason() -> None:
    decisions = (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")
    ours = re.findall(rf"^\| `([^`]+)`.* \| {OURS} \|", reference(), re.MULTILINE)
    assert len(ours) > 20
    named = set(re.findall(r"`([\w.]+\*?)`", decisions))
    sections = tuple(name.removesuffix("*") for name in named if name.endswith(".*"))
    lacking = [
        key
        for key in (key.replace("<i>.", "").replace("steps.", "") for key in ours)
        if not key.startswith(sections) and not {key, key.rpartition(".")[2]} & named
    ]
    assert lacking == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_of_the_repository_that_a_document_names_exists(document: Path) -> None:
    folders = "benchmarks|configs|docs|fastslow|tasks|tests"
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(rf"`((?:{folders})/[\w./-]+\.\w+)`", text))
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def snippet(page: str) -> str:
    """The one block of Python of a page of the guide."""
    text = (ROOT / "docs" / "guide" / page).read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return str(block)


def test_the_task_of_the_guide_is_short_and_keeps_the_contract() -> None:
    assert len(snippet("own-task.md").splitlines()) <= 35
    module = ModuleType("guide")
    exec(compile(snippet("own-task.md"), "own-task.md", "exec"), module.__dict__)
    assert list(contract_failures(module.doubling.build("doubling"))) == []


def test_the_remedy_of_the_guide_can_be_built() -> None:
    module = ModuleType("guide")
    exec(compile(snippet("own-remedy.md"), "own-remedy.md", "exec"), module.__dict__)
    assert module.towards_base.build({"rate": 0.1}).settle is not None
    with pytest.raises(ValidationError, match="rates"):
        module.towards_base.build({"rates": 0.1})


def test_every_page_of_the_site_is_in_its_navigation_and_the_other_way_round() -> None:
    nav = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    pages = set(re.findall(r"'([\w/-]+\.md)'", str(nav)))
    files = {path.relative_to(ROOT / "docs") for path in ROOT.glob("docs/**/*.md")}
    assert pages == {path.as_posix() for path in files}
