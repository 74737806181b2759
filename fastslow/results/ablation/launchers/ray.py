"""Runs as tasks of a Ray cluster, which share the ablation's folder."""

import os
import re
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastslow.core.errors import ConfigError
from fastslow.core.text import shorten, visible
from fastslow.results.ablation.launchers.base import End, Share
from fastslow.results.ablation.launchers.process import run

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it reports nothing about its use
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # and leaves the devices of runs without GPUs alone
    "RAY_NUM_REDIS_GET_RETRIES": "1",  # a cluster that does not answer once, does not in 15 minutes
}


@dataclass
class RayJob:
    """A task."""

    ray: Any
    task: Any

    def poll(self) -> End | None:
        """See `Job`."""
        if not self.ray.wait([self.task], timeout=0)[0]:
            return None
        try:
            return End(int(self.ray.get(self.task)))
        except self.ray.exceptions.RayTaskError as error:  # before the run could start
            return End(1, shorten(str(error).strip().splitlines()[-1], 300))
        except self.ray.exceptions.RayError as error:
            return End(None, type(error).__name__)

    def stop(self, sign: signal.Signals) -> None:
        """See `Job`."""
        self.ray.cancel(self.task, force=sign == signal.SIGKILL)


class RayLauncher:
    """Submits tasks to the cluster at `RAY_ADDRESS`, to the one on this machine, or to one of ours.

    Args:
        share: Of a run; without `cpus` one core.

    Raises:
        ConfigError: The cluster cannot be reached.
    """

    num_jobs: int | None = None

    def __init__(self, share: Share) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        import ray

        self._ray, cpus = ray, share.cpus or 1
        address = os.environ.get("RAY_ADDRESS", "")
        try:
            if re.fullmatch(r"[^/]+:\d+", address):  # Ray itself would try for minutes
                host, port = address.rsplit(":", 1)
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"--launcher ray: the cluster at {visible(address) or 'no RAY_ADDRESS'} cannot be "
                f"reached, got {shorten(str(error), 300)}. Set RAY_ADDRESS to the address of its "
                "head, as host:port, or to local for a cluster of this machine alone."
            ) from error
        # a task that is lost is started again by the ablation, which knows where its run stands
        self._submit = ray.remote(num_cpus=cpus, num_gpus=share.gpus, max_retries=0)(run).remote
        self._threads = cpus

    def submit(self, words: Sequence[str], log: Path) -> RayJob:
        """See `Launcher`."""
        task = self._submit(list(words), log.absolute(), self._threads, Path.cwd())
        return RayJob(self._ray, task)

    def close(self) -> None:
        """See `Launcher`."""
        self._ray.shutdown()
