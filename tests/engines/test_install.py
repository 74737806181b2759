"""The wheel in an environment of its own, as `pip install fastslow` makes one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = [pytest.mark.network, pytest.mark.timeout(3600)]


def call(*command: str, folder: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that sees neither the checkout nor the packages of this environment."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"FASTSLOW_HOME": str(home), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_the_tiny_demonstration_runs_right_after_an_installation(tmp_path: Path) -> None:
    def done(*command: str) -> str:
        result = call(*command, folder=empty, home=tmp_path / "home")
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    empty, dist, venv = (tmp_path / name for name in ("empty", "dist", "venv"))
    empty.mkdir()
    probe = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "filelock"]
    if call(*probe, "--dest", str(tmp_path / "probe"), folder=empty, home=tmp_path).returncode:
        pytest.skip("pip reaches no package index")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    done(*build, "--outdir", str(dist), str(ROOT))
    (wheel,) = dist.glob("fastslow-*.whl")
    done(sys.executable, "-m", "venv", str(venv))
    programs = venv / ("Scripts" if os.name == "nt" else "bin")
    done(str(programs / "pip"), "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel))
    printed = done(str(programs / "fastslow"), "demo", "--tiny")
    assert "These weights are random" in printed
    assert [path.name for path in empty.iterdir()] == ["runs"]
