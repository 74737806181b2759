"""A vLLM server of the run's own: a process on this machine that never outlives the run."""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from fastslow.core.credentials import without_keys
from fastslow.core.errors import ConfigError, EngineError
from fastslow.core.files import append_to, make_folder
from fastslow.core.processes import ends_with_us
from fastslow.core.text import visible
from fastslow.policy.engine.vllm.client import Server

PYTHON_VARIABLE = "FASTSLOW_VLLM_PYTHON"
"""Names the interpreter that has vLLM, where the configuration names none."""
DEFAULT_PYTHON = ".venv-vllm/bin/python"
"""Where `make vllm` puts it."""
KEY_VARIABLE = "VLLM_API_KEY"
"""Holds the key of servers. vLLM reads it under this name too."""
MODULE = "vllm.entrypoints.openai.api_server"
"""Started as a module: the command `vllm` asks for a distribution that CPU builds do not have."""
CPU_ARGUMENTS = ("--block-size", "32")
"""On a CPU a block has 128 tokens by default, and only whole blocks are cached."""
CPU_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1"}
"""Gigabytes of a CPU's memory for what is cached; vLLM takes half of the machine's by default."""
LAST_LINES = 20
"""Lines of its log that a failure repeats."""
ENDING_S = 20.0
"""Seconds that it has to end by itself."""


def interpreter(configured: str | None) -> str:
    """The interpreter that has vLLM.

    Raises:
        ConfigError: It is not there, or has no vLLM.
    """
    path = configured or os.environ.get(PYTHON_VARIABLE) or DEFAULT_PYTHON
    check = "import sys, importlib.util as i; sys.exit(3 * (i.find_spec('vllm') is None))"
    try:
        code = subprocess.run([path, "-c", check], capture_output=True, check=False).returncode
    except (OSError, ValueError) as err:  # ValueError: a zero byte
        reason = f"it cannot be started, {getattr(err, 'strerror', err)}"
    else:
        if code == 0:
            return path
        reason = "it has no vLLM" if code == 3 else f"it ended with {code}"
    raise ConfigError(
        f"engine.python: expected an interpreter that has vLLM, got {path}: {reason}. Make one "
        f"with `make vllm`, or name yours there or in the variable {PYTHON_VARIABLE}."
    )


class ManagedServer:
    """A server's process and its log; `arguments` are those of vLLM, the address apart."""

    def __init__(self, python: str, arguments: Sequence[str], folder: Path, *, cpu: bool) -> None:
        self.log = make_folder(folder, ".") / "vllm.log"
        self.key = os.environ.get(KEY_VARIABLE) or secrets.token_hex(16)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        words = [python, "-m", MODULE, "--host", "127.0.0.1", "--port", str(port), *arguments]
        settings = {"VLLM_NO_USAGE_STATS": "1"} | (CPU_ENVIRONMENT if cpu else {}) | os.environ
        settings |= {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", KEY_VARIABLE: self.key}
        settings.pop("PYTHONPATH", None)  # packages of ours are no packages of its
        with append_to(self.log) as log:
            self._start = log.seek(0, os.SEEK_END)
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=settings,
                start_new_session=True,  # Ctrl-C is for us, who end it after what is in work
                preexec_fn=ends_with_us(),
            )

    def cause(self) -> str | None:
        """Why it does not answer: how it ended, and the end of its log; None while it runs."""
        if (code := self._process.poll()) is None:
            return None
        return f"the vLLM server ended with {code}. The end of {self.log}:\n{self._last_lines()}"

    def wait_until_up(self, server: Server, limit_s: float) -> None:
        """Wait for it to answer.

        Raises:
            EngineError: It ended, or takes longer than `limit_s` seconds.
        """
        deadline = time.monotonic() + limit_s
        while not server.is_healthy():
            if (ended := self.cause()) is not None:
                raise EngineError(f"engine: {ended}")
            if time.monotonic() > deadline:
                raise EngineError(
                    f"engine: the vLLM server is not up after engine.start_s = {limit_s:g} seconds."
                    f" The end of {self.log}:\n{self._last_lines()}"
                )
            time.sleep(0.2)

    def end(self) -> None:
        """End it with all its processes."""
        for number, wait_s in ((signal.SIGTERM, ENDING_S), (signal.SIGKILL, ENDING_S)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(wait_s)

    def _last_lines(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._start)
            text = log.read().decode(errors="replace")
        lines = without_keys(text, [self.key]).splitlines()[-LAST_LINES:]
        return "\n".join(f"  {visible(line)}" for line in lines)


@contextlib.contextmanager
def managed_server(
    python: str, arguments: Sequence[str], folder: Path, *, cpu: bool
) -> Iterator[ManagedServer]:
    """A server that ends with what is done within it; its log lies in `folder`."""
    server = ManagedServer(python, arguments, folder, cpu=cpu)
    try:
        yield server
    finally:
        server.end()
