"""`fastslow` as a process of its own on this machine, by whichever launcher it came here."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fastslow.core.files import append_to, disk_errors, make_folder
from fastslow.core.processes import ends_with_us

POLL_S = 0.2
"""Between two looks at a process."""
STOP_S = 60.0
"""A run that is told to stop ends the step in hand; after this long it is told again."""
SIGNS = tuple(
    signal.Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGKILL")
    if name in signal.Signals.__members__  # Windows has no SIGKILL, and ends a process by SIGTERM
)


def start(
    words: Sequence[str], log: Path, threads: int, folder: Path, devices: str | None = None
) -> subprocess.Popen[bytes]:
    """Start `fastslow` with these words in `folder`, its output appended to `log`.

    It is a process group of its own, so that Ctrl-C reaches it once, through us; where the system
    can, it is told to stop when we die. It computes in so many threads, if ours do not say, and
    sees the GPUs named in `devices`, by default those that we do.
    """
    environment = {"OMP_NUM_THREADS": str(threads)} | os.environ
    if devices is not None:
        environment["CUDA_VISIBLE_DEVICES"] = devices
    with disk_errors(log, "cannot be written", "run the command again"):
        make_folder(log.parent.parent, log.parent.name)
        file = append_to(log)
    with file:
        return subprocess.Popen(
            [sys.executable, "-m", "fastslow", *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            process_group=0,
            preexec_fn=ends_with_us(_listen_to_signals),
        )


def _listen_to_signals() -> None:
    """Let Ctrl-C work under `&` too, and not what Slurm sends to all before a time limit."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def run(words: Sequence[str], log: Path, threads: int, folder: Path) -> int:
    """The same to its end, on the machine of a cluster; the exit code.

    What interrupts us stops it first, as `stop_all` does.
    """
    process = start(words, log, threads, folder)
    try:
        while process.poll() is None:
            time.sleep(POLL_S)  # unlike `wait`, it lets an interrupt of Ray through
    finally:
        stop_all([process.send_signal], lambda: process.poll() is not None)
    return process.returncode


def stop_all(
    senders: Sequence[Callable[[signal.Signals], None]], have_ended: Callable[[], bool]
) -> None:
    """Tell runs to stop as Ctrl-C would, and wait until they have; nothing when none is left."""
    for sign in SIGNS:
        if have_ended():
            return
        for send in senders:
            send(sign)
        until = time.monotonic() + STOP_S
        while time.monotonic() < until and not have_ended():
            time.sleep(POLL_S)
