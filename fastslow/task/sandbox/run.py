"""Runs a program that nobody trusts, and gives back what it wrote.

For tasks whose answers are programs. The program gets a process of its own without network, without
this machine's files, without the environment, and with limits on time, memory, output and files;
`jail.py` builds that room from Linux namespaces. Where the system does not allow it nothing
is run. docs/trust.md says what the room does not protect against.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

from fastslow.core.text import shorten
from fastslow.task.sandbox import jail

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
    file_bytes: int = 1 << 20
    """In all the files of its own folder together, which is the only one it can write."""


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
        OSError: The room cannot be built here; nothing was run. See `why_unavailable`.
    """
    limits = limits or Limits()
    body = source.encode(errors="replace").replace(b"\0", b" ")
    with tempfile.TemporaryDirectory(prefix="fastslow-room-") as root:
        listen, ready = os.pipe()
        settings = _settings(root, ready, limits)
        with subprocess.Popen(
            [_python(), "-I", "-S", "-B", jail.__file__, settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            cwd="/",
            start_new_session=True,
            pass_fds=(ready,),
        ) as process:
            os.close(ready)
            try:
                ending, output, errors = _watch(process, body + b"\0" + stdin.encode(), limits)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        was_run = os.read(listen, len(jail.READY)) == jail.READY
        os.close(listen)
    lines = errors.decode(errors="replace").strip().splitlines()
    complaint = shorten(lines[-1], 200) if lines else ""
    if not was_run:
        raise OSError(f"no closed room for programs can be built here: {complaint}")
    if ending == "done" and process.returncode != 0:
        ending = "ended by an error"
        if process.returncode == 128 + signal.SIGKILL:
            ending = "too slow"
    return ProgramResult(ending, output.decode(errors="replace"), complaint)


@cache
def why_unavailable() -> str | None:
    """Why programs cannot be run here, in one sentence; None if they can.

    Asked once per process, by running one.
    """
    if not sys.platform.startswith("linux"):
        return f"closed rooms for programs are made of Linux namespaces, this is {sys.platform}"
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


def _settings(root: str, ready: int, limits: Limits) -> str:
    """What `jail.py` needs to know."""
    return json.dumps(
        {
            "root": root,
            "ready": ready,
            "python": _python(),
            "visible": _visible(),
            "file_bytes": limits.file_bytes,
            "limits": {
                "CPU": limits.cpu_s,
                "AS": limits.memory_bytes,
                "FSIZE": limits.file_bytes,
                "NOFILE": 32,
                "CORE": 0,
            },
        }
    )


def _python() -> str:
    return os.path.realpath(sys.executable)


def _visible() -> list[str]:
    """The interpreter, its standard library, and the shared libraries of the system."""
    standard = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    libraries = [str(sysconfig.get_config_var("LIBDIR") or "")]
    system = ["/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/etc/ld.so.cache"]
    paths = dict.fromkeys([*system, *libraries, *standard, _python()])
    return [path for path in paths if path and Path(path).exists()]
