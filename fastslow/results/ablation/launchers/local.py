"""Runs as processes on this machine."""

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastslow.core.errors import ConfigError
from fastslow.results.ablation.launchers.base import End, Share
from fastslow.results.ablation.launchers.process import start


@dataclass
class LocalJob:
    """A process, with the devices that it has to itself."""

    process: subprocess.Popen[bytes]
    devices: list[str]
    free: list[str]
    """Where its devices go when it has ended."""

    def poll(self) -> End | None:
        """See `Job`."""
        code = self.process.poll()
        if code is None:
            return None
        self.free += self.devices
        self.devices = []
        return End(code)

    def stop(self, sign: signal.Signals) -> None:
        """See `Job`."""
        self.process.send_signal(sign)


class LocalLauncher:
    """Starts processes, each with its share of the cores and with GPUs of its own.

    Args:
        share: Of a run; without `cpus` the cores are shared out among the workers.
        workers: Runs at the same time.

    Raises:
        ConfigError: There are not as many GPUs as so many runs need.
    """

    num_jobs: int | None = 1

    def __init__(self, share: Share, workers: int) -> None:
        self._cpus = share.cpus or max(1, len(os.sched_getaffinity(0)) // workers)
        self._gpus = share.gpus
        self._free = _devices() if share.gpus else []
        if len(self._free) < workers * share.gpus:
            raise ConfigError(
                f"--gpus-per-run: {workers} runs at the same time need {workers * share.gpus} "
                f"GPUs, got {len(self._free)} on this machine. Lower it or --workers."
            )

    def submit(self, words: Sequence[str], log: Path) -> LocalJob:
        """See `Launcher`."""
        devices, self._free[: self._gpus] = self._free[: self._gpus], []
        names = ",".join(devices) if devices else None
        process = start(words, log, self._cpus, Path.cwd(), names)
        return LocalJob(process, devices, self._free)

    def close(self) -> None:
        """See `Launcher`."""


def _devices() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    if names is not None:
        return [name for name in names.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]
