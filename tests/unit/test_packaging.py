"""What the repository says of itself in pyproject.toml, constraints.txt and the Makefile."""

import ast
import os
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT


def project() -> dict[str, Any]:
    data: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return data


def requirements() -> list[str]:
    extras: dict[str, list[str]] = project()["optional-dependencies"]
    return sorted({*project()["dependencies"], *(r for names in extras.values() for r in names)})


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


@pytest.mark.parametrize("text", requirements())
def test_every_dependency_is_pinned_within_its_range(text: str) -> None:
    wanted = Requirement(text)
    pin = pins().get(canonicalize_name(wanted.name))
    assert pin is not None, f"{wanted.name} is not in constraints.txt"
    assert wanted.specifier.contains(pin)


def test_no_pin_carries_a_local_version() -> None:
    assert [name for name, version in pins().items() if "+" in version] == []


def test_torch_stays_at_the_version_that_pulls_no_gpu_packages() -> None:
    assert pins()["torch"] == "2.13.0"


def test_the_makefile_lists_every_target_it_declares() -> None:
    text = (ROOT / "Makefile").read_text()
    declared = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert declared
    documented = re.findall(r"^([a-z]+):.*## \S", text, re.MULTILINE)
    assert sorted(documented) == sorted(declared[1].split())


def test_continuous_integration_runs_check_and_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make check test" in script.read_text()


def imported_packages() -> set[str]:
    """Top-level names that the package and the shipped tasks import, the standard library aside.

    pydantic_core is the other half of pydantic, which pins it.
    """
    names: set[str] = set()
    for path in [*(ROOT / "fastslow").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"fastslow", "tasks", "pydantic_core"}


def test_whatever_is_imported_is_a_declared_dependency() -> None:
    declared = {canonicalize_name(Requirement(text).name) for text in requirements()}
    providers = packages_distributions()  # an extra that is not installed goes by its own name
    missing = {
        name
        for name in imported_packages()
        if not declared & {canonicalize_name(dist) for dist in providers.get(name, [name])}
    }
    assert missing == set()
