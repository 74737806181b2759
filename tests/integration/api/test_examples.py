"""The notebooks under examples/ run from top to bottom, and the examples of docstrings hold.

They run in this process, which has torch already: a kernel of their own would take as long again.
"""

import ast
import doctest
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from pandas import DataFrame

import fastslow
from fastslow.policy.model_fetch import fetch
from tests.support.paths import ROOT

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
MODULES = ("fastslow", *(f"fastslow.api.{name}" for name in fastslow._MODULES))


def run_cell(source: str, names: dict[str, Any]) -> object:
    """Execute a cell, and give what its last line is, as a notebook does."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if last is None:
        return None
    assert isinstance(last, ast.Expr)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def cells(notebook: Path) -> list[dict[str, Any]]:
    content: dict[str, Any] = json.loads(notebook.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model cache with the tiny model."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTSLOW_HOME", str(folder))
        fetch("tiny-random")
    return folder


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(
    notebook: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTSLOW_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells(notebook):
        value = run_cell("".join(cell["source"]), names)
        if isinstance(value, DataFrame):
            assert len(value), f"an empty table: {cell['source']}"
    runs = [value for value in names.values() if isinstance(value, fastslow.RunFolder)]
    assert len(runs) == 2
    assert {run.state for run in runs} == {"finished"}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(notebook: Path) -> None:
    assert [cell for cell in cells(notebook) if cell["outputs"] or cell["execution_count"]] == []


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_docstrings_hold(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    results = doctest.testmod(importlib.import_module(module), extraglobs={"fastslow": fastslow})
    assert results.failed == 0
    assert results.attempted > 0 or module == "fastslow.api.runs"  # which would train


def test_every_name_of_the_interface_is_there_and_has_a_docstring() -> None:
    for name in fastslow.__all__:
        value = getattr(fastslow, name)
        assert name == "__version__" or value.__doc__
    assert sorted(fastslow.__all__) == dir(fastslow)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        fastslow.__getattr__("trian")
    assert "fastslow" in sys.modules
