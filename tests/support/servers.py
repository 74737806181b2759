"""OpenAI-compatible servers on this machine: a real one, and one that fails as told."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

UP_WITHIN_S = 60.0
"""Loading transformers takes most of it on a busy machine."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RealServer:
    """`transformers serve` in a process of its own."""

    def __init__(self, folder: Path, log: Path) -> None:
        self.model = f"openai/{folder}"
        port = free_port()
        self.api_base = f"http://127.0.0.1:{port}/v1"
        self._health = f"http://127.0.0.1:{port}/health"
        self._log = log
        program = Path(sys.executable).with_name("transformers")
        words = [program, "serve", folder, "--host", "127.0.0.1", "--port", port]
        words += ["--device", "cpu", "--dtype", "float32"]
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [str(word) for word in words],
                stdout=out,
                stderr=subprocess.STDOUT,
                env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    def wait(self) -> "RealServer":
        deadline = time.monotonic() + UP_WITHIN_S
        while time.monotonic() < deadline and self.process.poll() is None:
            with (
                contextlib.suppress(urllib.error.URLError, ConnectionError),
                urllib.request.urlopen(self._health, timeout=2) as answer,
            ):
                if answer.status == 200:
                    return self
            time.sleep(0.1)
        raise AssertionError(f"the server did not come up: {self._log.read_text()[-2000:]}")

    def kill(self) -> None:
        """As if the machine had gone: no goodbye to open connections."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=10)


@contextlib.contextmanager
def real_server(folder: Path, log: Path) -> Iterator[RealServer]:
    server = RealServer(folder, log)
    try:
        yield server.wait()
    finally:
        server.kill()


class FailingServer:
    """Answers chat requests with the statuses it is told, in turn; the last one stays.

    Args:
        statuses: HTTP statuses; 200 answers, 0 answers too late.
        message: What errors say.
        answer: What answers say.
    """

    def __init__(
        self, statuses: Sequence[int], message: str = "no", answer: str = "better"
    ) -> None:
        self.statuses = list(statuses)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the name is the library's
                body = self.rfile.read(int(self.headers["Content-Length"]))
                script.requests.append(json.loads(body))
                script.keys.append(self.headers.get("Authorization", ""))
                status = script.statuses.pop(0) if script.statuses[1:] else script.statuses[0]
                if status == 0:
                    time.sleep(1.0)
                    return
                usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
                choice = {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": answer},
                }
                whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
                whole |= {"choices": [choice], "usage": usage}
                said = whole if status == 200 else {"error": {"message": message}}
                data = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *unused: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.api_base = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "FailingServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
