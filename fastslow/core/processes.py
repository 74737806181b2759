"""Which process this is, whether another one still lives, and children that end with us."""

import ctypes
import signal
import socket
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path


@cache
def this_machine() -> str:
    """Of this machine since it was started, and of the processes that see each other's numbers.

    The host's name where the system does not say more.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def start_of(pid: int) -> str | None:
    """When a process started, in ticks since the machine did; None where it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    state, *rest = text.rpartition(b")")[2].split()  # the name before it may hold anything
    return None if state in (b"Z", b"X") else rest[18].decode()


def ends_with_us(first: Callable[[], object] = lambda: None) -> Callable[[], None] | None:
    """For `preexec_fn`: has Linux end a child once the thread that starts it is gone.

    Args:
        first: What the child does before.

    Returns:
        None where the system has no such thing.
    """
    if sys.platform != "linux":
        return None

    def ask() -> None:
        first()
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG

    return ask
