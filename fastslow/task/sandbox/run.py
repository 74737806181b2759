"""Runs a program that nobody trusts, and gives back what it wrote.

For tasks whose answers are programs. Each runs in a room of its own (`bubblewrap.py`), with limits
on time, memory and output that are set from outside before it begins. Where no room can be built
nothing is run. docs/trust.md says what the room does not protect against.
"""

import os
import selectors
import signal
import subprocess
import time
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

from fastslow.core.text import shorten
from fastslow.task.sandbox import bubblewrap

Ending: TypeAlias = Literal["done", "ended by an error", "too slow", "too talkative"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use."""

    cpu_s: int = 2
    """Seconds of computing."""
    wall_s: float = 10.0
    """Seconds in all, waiting included."""
    memory_bytes: int = 256 << 20
    """Address space."""
    output_bytes: int = 1 << 16
    """Written to standard output; as much again to standard error."""

    def of_the_kernel(self) -> dict[int, int]:
        """Those that the kernel holds a process to, by their number."""
        import resource  # Windows has none

        return {
            resource.RLIMIT_CPU: self.cpu_s,
            resource.RLIMIT_AS: self.memory_bytes,
            resource.RLIMIT_NOFILE: 32,
            resource.RLIMIT_CORE: 0,
        }


@dataclass(frozen=True, slots=True)
class ProgramResult:
    """How a program ended, and its output."""

    ending: Ending
    output: str
    """What it wrote to standard output; untrusted text."""
    complaint: str
    """The last line of its standard error, shortened and visible; empty if there was none."""


def run_program(source: str, stdin: str = "", limits: Limits | None = None) -> ProgramResult:
    """Run untrusted Python source, the standard library at hand, and wait for its end.

    Raises:
        OSError: No room can be built here; nothing was run. See `why_unavailable`.
    """
    if missing := bubblewrap.why_missing():
        raise OSError(missing)
    limits = limits or Limits()
    with bubblewrap.Room(source.encode(errors="replace")) as room:
        with subprocess.Popen(
            room.words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            cwd="/",
            pass_fds=room.inherited,
        ) as process:
            try:
                room.begin(limits.of_the_kernel())
                ending, output, errors = _watch(process, stdin.encode(errors="replace"), limits)
            finally:
                room.clear()
        code = room.exit_code
    lines = errors.decode(errors="replace").strip().splitlines()
    complaint = shorten(lines[-1], 200) if lines else ""
    if ending == "done":
        if code is None:
            raise OSError(f"no room for programs can be built here: {complaint}")
        killed = code == 128 + signal.SIGKILL  # past its limit on computing
        ending = "done" if code == 0 else "too slow" if killed else "ended by an error"
    return ProgramResult(ending, output.decode(errors="replace"), complaint)


@cache
def why_unavailable() -> str | None:
    """Why programs cannot be run here, in one sentence; None if they can.

    Asked once per process, by running one.
    """
    try:
        trial = run_program("print(6 * 7)")
    except OSError as err:
        return str(err)
    return None if trial.output == "42\n" else f"a trial program {trial.ending}: {trial.complaint}"


def _watch(
    process: subprocess.Popen[bytes], body: bytes, limits: Limits
) -> tuple[Ending, bytes, bytes]:
    """Feed a process and read what it writes, until it ends or goes over a limit."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    deadline = time.monotonic() + limits.wall_s
    written = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as waiting:
        for pipe in (process.stdin, *written):
            os.set_blocking(pipe.fileno(), False)
            events = selectors.EVENT_WRITE if pipe is process.stdin else selectors.EVENT_READ
            waiting.register(pipe, events)
        ending: Ending = "done"
        while waiting.get_map() and ending == "done":
            for key, _ in waiting.select(max(0.0, deadline - time.monotonic())):
                if key.fileobj is process.stdin:
                    body = _feed(process.stdin.fileno(), body)
                    if not body:
                        waiting.unregister(process.stdin)
                        process.stdin.close()
                    continue
                pipe = process.stdout if key.fileobj is process.stdout else process.stderr
                data = os.read(pipe.fileno(), 1 << 16)
                written[pipe] += data
                if not data:
                    waiting.unregister(pipe)
            if any(len(output) > limits.output_bytes for output in written.values()):
                ending = "too talkative"
            elif time.monotonic() > deadline:
                ending = "too slow"
    if ending == "done":
        process.wait()
    outputs = [bytes(part[: limits.output_bytes]) for part in written.values()]
    return ending, outputs[0], outputs[1]


def _feed(handle: int, body: bytes) -> bytes:
    """Write what a pipe takes; what is left."""
    try:
        return body[os.write(handle, body) :]
    except BrokenPipeError:
        return b""
