"""A grid as jobs of submitit: its local executor, and the script that Slurm would be given."""

import io
import os
import signal
from pathlib import Path

import pytest
from rich.console import Console

from fastslow.core.progress import Progress
from fastslow.results.ablation import read_plan
from fastslow.results.ablation.execute import execute
from fastslow.results.ablation.launchers.base import End, Share
from tests.support import grids
from tests.support.paths import ROOT
from tests.support.tiny import save_tiny

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'fastslow[slurm]'")
pytestmark = pytest.mark.timeout(1800)


# submitit leaves processes that end a moment after the run's exit code is there to the collector
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_jobs_make_every_run_and_one_that_is_killed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastslow.results.ablation.launchers.slurm import SlurmJob, SlurmLauncher

    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    model = save_tiny(tmp_path / "model")
    overrides = [*grids.TOYS, "seeds=[0]", f"model.name={model}", f"runs_dir={tmp_path / 'runs'}"]
    plan = read_plan(Path(grids.FILE), overrides)
    killed: list[int] = []
    poll = SlurmJob.poll

    def poll_and_kill(job: SlurmJob) -> End | None:
        for card in plan.folder.glob("*slow-only*/scores.jsonl"):
            if not killed:
                lease = next((card.parent / "lease").iterdir()).read_text()
                killed.append(int(lease.split('"pid": ')[1].split(",")[0]))
                os.kill(killed[0], signal.SIGKILL)
        return poll(job)

    monkeypatch.setattr(SlurmJob, "poll", poll_and_kill)
    printed = io.StringIO()

    def progress(total: float) -> Progress:
        return Progress(total, Console(file=printed, width=200))

    launcher = SlurmLauncher(Share(), plan.folder, cluster="local")
    assert execute(plan, launcher, 2, progress) == {}
    assert {status.state for _, status in plan.statuses()} == {"finished"}
    assert "died slow-only-s0: exit code -9; started again" in printed.getvalue()


def test_slurm_is_asked_for_what_a_run_needs_and_never_to_run_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastslow.results.ablation.launchers.slurm import SlurmLauncher

    commands = tmp_path / "bin"
    commands.mkdir()
    scripts = {
        "sbatch": f'cp "$1" {tmp_path}/script; echo Submitted batch job 7',
        "srun": "true",
        "sacct": 'echo "JobID|State|NodeList"; echo "7|RUNNING|node1"',
        "scancel": f'echo "$1" > {tmp_path}/cancelled',
    }
    for name, text in scripts.items():
        (commands / name).write_text(f"#!/bin/sh\n{text}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(commands), prepend=os.pathsep)
    launcher = SlurmLauncher(Share(cpus=4, gpus=1), tmp_path / "grid")
    job = launcher.submit(["train", "a.json"], tmp_path / "grid" / "logs" / "a.log")
    script = (tmp_path / "script").read_text()
    for line in ("--cpus-per-task=4", "--gpus-per-node=1", "--no-requeue", "--signal=USR2@90"):
        assert f"#SBATCH {line}" in script
    assert "--time" not in script
    assert job.poll() is None
    job.code.write_text("143")
    assert job.poll() == End(143)
    job.stop(signal.SIGINT)
    assert (tmp_path / "cancelled").read_text() == "7\n"
