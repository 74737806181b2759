"""Which process this is, and whether another of this machine still lives."""

import socket
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
