"""Runs as Slurm jobs, by submitit."""

import secrets
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from fastslow.core.errors import AblationError, ConfigError
from fastslow.core.files import make_folder, read_regular, write_file
from fastslow.core.text import shorten
from fastslow.results.ablation.launchers.base import End, Share
from fastslow.results.ablation.launchers.process import run

FOLDER = "submitit"
"""Under the ablation's folder: scripts and output of the jobs, and exit codes of their runs."""
LAG_S = 30.0
"""How much later than the end of a job its exit code may be seen through a network file system."""


@dataclass
class SlurmJob:
    """A job, known by the file that its exit code goes to.

    submitit's own results are pickles in a folder that others may write to; none is opened here.
    """

    job: Any
    code: Path
    ended: float | None = None
    """When it was seen to have ended without an exit code."""

    def poll(self) -> End | None:
        """See `Job`."""
        try:
            return End(int(read_regular(self.code)))
        except (OSError, ValueError):
            pass
        if not self.job.done():
            self.ended = None
            return None
        self.ended = self.ended or time.monotonic()
        if time.monotonic() - self.ended < LAG_S:
            return None
        return End(None, f"job {self.job.job_id}, {shorten(str(self.job.state), 100)}")

    def stop(self, sign: signal.Signals) -> None:
        """See `Job`; Slurm's SIGTERM lets it save."""
        self.job.cancel(check=False)


class SlurmLauncher:
    """Submits jobs with `sbatch`, which takes partition, account and time from `SBATCH_*`.

    Args:
        share: Of a run; without `cpus` one core.
        folder: Of the ablation.
        cluster: An executor of submitit; `local` runs the jobs here.

    Raises:
        ConfigError: There is no Slurm on this machine.
    """

    num_jobs: int | None = None

    def __init__(self, share: Share, folder: Path, cluster: str = "slurm") -> None:
        import submitit

        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise ConfigError(
                "--launcher submitit: Slurm's sbatch was not found on this machine. Run the "
                "command on a node from which jobs are submitted, or use another launcher."
            )
        self._folder = make_folder(folder, FOLDER).absolute()
        self._threads = share.cpus or 1
        self._executor = submitit.AutoExecutor(self._folder / "%j", cluster=cluster)
        self._executor.update_parameters(
            name=shorten(f"fastslow-{folder.name}", 100),
            cpus_per_task=self._threads,
            gpus_per_node=share.gpus or None,
            stderr_to_stdout=True,
            timeout_min=10_000_000 if cluster == "local" else None,
        )
        if cluster == "slurm":
            # the time limit is the partition's, or SBATCH_TIMELIMIT; a job that Slurm itself runs
            # again would begin its run from the start, where the ablation resumes it
            self._executor.update_parameters(slurm_additional_parameters={"no-requeue": True})
            self._executor.parameters["time"] = None

    def submit(self, words: Sequence[str], log: Path) -> SlurmJob:
        """See `Launcher`."""
        code = self._folder / f"{secrets.token_hex(8)}.code"
        arguments = (list(words), log.absolute(), self._threads, Path.cwd(), code)
        try:
            return SlurmJob(self._executor.submit(run_to_file, *arguments), code)
        except Exception as error:  # whatever sbatch and submitit raise
            raise AblationError(
                f"--launcher submitit: the job was not taken, got {shorten(str(error), 300)}. "
                "Give partition, account and time as SBATCH_PARTITION, SBATCH_ACCOUNT and "
                "SBATCH_TIMELIMIT."
            ) from error

    def close(self) -> None:
        """See `Launcher`."""


def run_to_file(words: Sequence[str], log: Path, threads: int, folder: Path, code: Path) -> None:
    """`run`, whose exit code goes to a file; as a job does, which signals stop."""
    for number in (signal.SIGTERM, signal.SIGUSR2):  # at its end, or at its limit of time
        signal.signal(number, _interrupt)
    exit_code = 128 + signal.SIGTERM
    try:
        exit_code = run(words, log, threads, folder)
    finally:
        write_file(code.parent, code.name, str(exit_code))


def _interrupt(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
