"""Commands, links and modules that the documents name must exist."""

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from pydantic import ValidationError

from benchmarks import scale
from benchmarks.keeping import REFERENCE
from benchmarks.questions.page import PAGE
from benchmarks.questions.page import page as questions
from benchmarks.results import readme, readme_block, results
from fastslow.cli.main import app, main
from fastslow.config.loading.reference import reference
from fastslow.core.keys import OURS
from fastslow.results.report import build_report
from fastslow.task.contract import contract_failures
from tests.support.paths import ROOT

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
PROGRAMS = ("fastslow", "make", "python")


def commands(document: Path) -> list[str]:
    """Shell commands of a document: lines of its shell blocks, and inline code that is one."""
    text = document.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:bash|sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.removeprefix("$ ").strip() for block in blocks for line in block.splitlines()]
    inline = re.findall(r"`((?:fastslow|make|python -m) [^`\n]+)`", text)
    return [line for line in [*lines, *inline] if line.split(" ")[0] in PROGRAMS]


def all_commands() -> list[Any]:
    return [
        pytest.param(command, id=f"{document.name}: {command}")
        for document in DOCUMENTS
        for command in dict.fromkeys(commands(document))
    ]


def subcommands() -> set[tuple[str, ...]]:
    """Every command of the command line, as its words."""
    found: set[tuple[str, ...]] = set()

    def walk(command: Any, path: tuple[str, ...]) -> None:
        found.add(path)
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, (*path, name))

    walk(typer.main.get_command(app), ())
    return found


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
        path = tuple(words[: 2 if words[0] in ("tasks", "models") else 1])
        assert path in subcommands() or words[0].startswith("--")
        files = [word for word in words if word.endswith((".yaml", ".yml"))]
        assert [file for file in files if not (ROOT / file).is_file()] == []


@pytest.mark.parametrize(
    "command",
    [p for p in all_commands() if re.match(r"fastslow (train|check) \S+\.yaml", p.values[0])],
)
def test_every_documented_configuration_is_valid_with_its_overrides(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    words = shlex.split(command, comments=True)[2:]
    ours = [word for word in words if not word.isupper() and not word.startswith("data=")]
    assert main(["check", *ours]) == 0  # data is the user's


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


def test_the_task_of_the_readme_keeps_the_contract() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    snippet, _ = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(snippet.splitlines()) <= 35
    module = ModuleType("readme")
    exec(compile(snippet, "README.md", "exec"), module.__dict__)
    assert list(contract_failures(module.doubling.build("doubling"))) == []


def test_the_remedy_of_the_readme_can_be_built() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    _, snippet = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    module = ModuleType("readme")
    exec(compile(snippet, "README.md", "exec"), module.__dict__)
    assert module.towards_base.build({"rate": 0.1}).settle is not None
    with pytest.raises(ValidationError, match="rates"):
        module.towards_base.build({"rates": 0.1})


def test_results_and_readme_are_what_the_reference_runs_say() -> None:
    assert (ROOT / "docs" / "results.md").read_text(encoding="utf-8") == results()
    assert PAGE.read_text(encoding="utf-8") == questions()
    assert scale.PAGE.read_text(encoding="utf-8") == scale.page()
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme(page, readme_block(build_report(REFERENCE / "demo"))) == page
