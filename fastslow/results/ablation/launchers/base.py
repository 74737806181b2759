"""The seam between an ablation and the machines that make its runs.

A launcher places commands; it knows nothing of runs. What it is asked to run are the words of a
`fastslow` command, whose paths hold on every machine, because the ablation's folder is shared.
"""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Share:
    """What a run gets of a machine."""

    cpus: int | None = None
    """Cores; None for what the launcher thinks fit."""
    gpus: int = 0


@dataclass(frozen=True)
class End:
    """How a command ended."""

    code: int | None
    """Exit code, below 0 for a signal, as of `subprocess`; None where it was lost on its way."""
    reason: str = ""
    """What is known of a lost one."""

    @property
    def is_death(self) -> bool:
        """Whether the command was killed, stopped from outside or lost, and did not fail itself."""
        return self.code is None or not 0 <= self.code <= 128

    def __str__(self) -> str:
        if self.code is None:
            return f"lost ({self.reason})"
        return f"exit code {self.code}" + (f" ({self.reason})" if self.reason else "")


class Job(Protocol):
    """A command that was submitted."""

    def poll(self) -> End | None:
        """How it ended; None while it waits or works."""

    def stop(self, sign: signal.Signals) -> None:
        """Ask it to stop as this signal would: SIGINT and SIGTERM let it save, SIGKILL does not."""


class Launcher(Protocol):
    """Places commands."""

    num_jobs: int | None
    """Jobs at a time where the user does not say; None for all, which wait for machines there."""

    def submit(self, words: Sequence[str], log: Path) -> Job:
        """Have `fastslow` run with these words, its output appended to `log`.

        Raises:
            CheckpointError: The log cannot be written.
            AblationError: The cluster does not take it.
        """

    def close(self) -> None:
        """Let go of the cluster, when no job is left."""
