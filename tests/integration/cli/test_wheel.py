"""The wheel, installed elsewhere, works from an empty folder: tasks and configs come along."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


def call(command: list[str], folder: Path, **variables: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the built wheel installed in it, and nothing else."""
    dist = tmp_path_factory.mktemp("dist")
    target = tmp_path_factory.mktemp("elsewhere")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(dist)]
    call([*build, str(ROOT)], dist)
    (wheel,) = dist.glob("fastslow-*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    call([*pip, "--disable-pip-version-check", "--target", str(target), str(wheel)], dist)
    return target


@pytest.fixture
def run(installed: Path, tmp_path: Path) -> "Runner":
    return Runner(installed, tmp_path)


class Runner:
    """Calls the installed copy from an empty folder."""

    def __init__(self, installed: Path, folder: Path) -> None:
        self.installed, self.folder = installed, folder

    def __call__(self, *words: str) -> str:
        command = [sys.executable, *words]
        home = str(self.folder / "cache")
        return call(command, self.folder, PYTHONPATH=str(self.installed), FASTSLOW_HOME=home)


def test_the_copy_that_runs_is_the_installed_one(run: Runner) -> None:
    printed = run("-c", "import fastslow; print(fastslow.__file__)").strip()
    assert Path(printed) == run.installed / "fastslow" / "__init__.py"


def test_every_task_of_the_repository_is_listed(run: Runner) -> None:
    names = sorted(path.parent.name for path in ROOT.glob("tasks/*/task.py"))
    assert len(names) >= 3
    listed = [line.split()[0] for line in run("-m", "fastslow", "tasks", "list").splitlines()]
    assert listed == names


def test_the_demonstration_is_checked_by_the_name_the_readme_gives(run: Runner) -> None:
    printed = run("-m", "fastslow", "check", "configs/experiments/demo.yaml")
    assert "rollouts" in printed
    assert str(ROOT) not in printed


def test_every_config_of_the_repository_is_shipped(installed: Path) -> None:
    shipped = installed / "fastslow" / "shipped"
    for folder in ("configs", "tasks"):
        expected = {
            path.relative_to(ROOT)
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        found = {path.relative_to(shipped) for path in shipped.rglob("*") if path.is_file()}
        assert expected <= found, f"not shipped: {sorted(expected - found)}"


def test_nothing_but_the_package_is_installed(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
    assert names == {"fastslow", "bin"}
    assert (installed / "fastslow" / "py.typed").is_file()


def test_the_templates_of_the_reports_come_along(run: Runner, installed: Path) -> None:
    folder = Path("fastslow/results/render/templates")
    names = {path.name for path in (ROOT / folder).iterdir()}
    assert {"report.html", "compare.html", "style.css"} <= names
    assert {path.name for path in (installed / folder).iterdir()} == names
    reference = ROOT / "runs" / "reference" / "demo"
    shutil.copytree(reference, run.folder / "demo")
    run("-m", "fastslow", "report", "demo")
    assert "Content-Security-Policy" in (run.folder / "demo" / "report.html").read_text()


LACKING = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog")
"""Modules of Python that Windows does not have."""
ELSEWHERE = f"""
import os, pkgutil, signal, sys
from pathlib import Path
sys.path[:] = [p for p in sys.path if not (Path(p) / "pyproject.toml").exists()]
import datasets, dspy, filelock, matplotlib.pyplot, mlflow, peft, psutil, trl
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
for name in {LACKING}:
    sys.modules[name] = None  # after libraries, which take this system for what it is
whole = dict(vars(os)), dict(vars(signal))
for name in ("fork", "killpg", "uname", "geteuid", "getegid", "sched_getaffinity",
             "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "register_at_fork"):
    delattr(os, name)
for name in ("SIGKILL", "SIGUSR1", "SIGUSR2", "SIGHUP"):
    delattr(signal, name)
import fastslow
for module in pkgutil.walk_packages(fastslow.__path__, "fastslow."):
    if not module.name.startswith(("fastslow.shipped", "fastslow.__main__")):
        __import__(module.name)
vars(os).update(whole[0])
vars(signal).update(whole[1])
from fastslow.cli.main import main
codes = [main(["check", "configs/experiments/demo.yaml"]), main(["demo", "--tiny"]), main(["runs"])]
assert codes == [0, 0, 0], codes
"""


def test_the_tiny_demonstration_runs_from_an_empty_folder_where_python_has_no_unix_modules(
    run: Runner,
) -> None:
    """As on Windows, as far as a test can have it here: without the checkout, and no download."""
    printed = run("-c", ELSEWHERE)
    assert "tiny-random: ready in" in printed
    assert "These weights are random" in printed
    (folder,) = (run.folder / "runs").iterdir()
    assert (folder / "report.html").is_file()
    assert f"{folder.name}  finished" in printed
