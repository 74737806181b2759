"""A vLLM server's protocol in this process, over torch engines; and the faults servers have.

Answers as vllm 0.32.0 did when it was asked the same.
"""

import json
import threading
import time
from collections.abc import Callable
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fastslow.core.types import Sampling
from fastslow.policy.engine.torch_engine import TorchEngine
from fastslow.policy.policy import load_policy

LOADING = threading.Lock()
"""Libraries that load models are for one thread at a time."""


class VllmDouble:
    """Serves a model folder, and adapters that are loaded at run time.

    Args:
        folder: The base.
        name: What the base is served as; the folder's name by default.
        max_rank: As `--max-lora-rank`; 0 as without `--enable-lora`.
        key: What requests have to carry.
    """

    def __init__(
        self, folder: Path, name: str = "", max_rank: int = 64, key: str | None = None
    ) -> None:
        self.folder, self.name, self.max_rank, self.key = folder, name or folder.name, max_rank, key
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.fault: Callable[[str, dict[str, Any]], int | None] = lambda path, body: None
        """Given a request, the status it fails with; 0 hangs, -1 drops the connection."""
        self.model_for: Callable[[str], str] = lambda name: name
        """Which model answers for a name, as a server with a stale cache confuses them."""
        self.adapters: dict[str, TorchEngine] = {}
        self.rebase(folder)
        self._lock = threading.Lock()
        self._http: ThreadingHTTPServer | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Up on the same port, as a process that was started again: it has no adapters."""
        self.adapters.clear()
        double = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:  # the name is the library's
                self._answer({})

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, body: dict[str, Any]) -> None:
                status, content = double.answer(self.path, body, self.headers["Authorization"])
                if status < 0:
                    self.close_connection = True
                    self.connection.close()
                    return
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *unused: object) -> None:
                """Say nothing."""

        class Http(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *unused: object) -> None:
                """Connections that were dropped on purpose."""

        self._http = Http(("127.0.0.1", self._port), Handler)
        self._port = self._http.server_port
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def kill(self) -> None:
        """No one listens any more, and open connections break off at their next request."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http, self.fault = None, lambda path, body: -1

    def revive(self) -> None:
        """Start again after `kill`."""
        self.fault = lambda path, body: None
        self.start()

    def __enter__(self) -> "VllmDouble":
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def answer(self, path: str, body: dict[str, Any], key: str | None) -> tuple[int, Any]:
        """Status and content; below 0 there is none."""
        self.requests.append((path, body))
        status = self.fault(path, body)
        if status == 0:
            time.sleep(1.5)
        if status is not None:
            return status or -1, _error("EngineCore encountered an issue.", status)
        if path == "/health":
            return 200, {}
        if self.key and key != f"Bearer {self.key}":
            return 401, {"error": "Unauthorized"}
        if path == "/v1/models":
            return 200, {"data": self._cards()}
        if path == "/v1/load_lora_adapter" and self.max_rank:
            return self._load(body["lora_name"], Path(body["lora_path"]))
        if path == "/v1/unload_lora_adapter" and self.max_rank:
            gone = self.adapters.pop(body["lora_name"], None)
            return (200, "Success") if gone else (404, _error("cannot be found", 404))
        if path == "/v1/completions":
            return self._complete(body)
        return 404, {"detail": "Not Found"}

    def _cards(self) -> list[dict[str, Any]]:
        base = {"id": self.name, "root": str(self.folder), "parent": None, "max_model_len": 2048}
        return [base, *({"id": n, "root": n, "parent": self.name} for n in self.adapters)]

    def _load(self, name: str, folder: Path) -> tuple[int, Any]:
        if not folder.is_dir():
            return 404, _error(f"Loading lora {name} failed: No adapter found for {folder}", 404)
        if name in self.adapters:
            words = f"The lora adapter '{name}' has already been loaded. If you want to load ..."
            return 400, _error(words, 400)
        rank = json.loads((folder / "adapter_config.json").read_text())["r"]
        if rank > self.max_rank:
            words = f"LoRA rank {rank} is greater than max_lora_rank {self.max_rank}."
            return 500, _error(words, 500)
        self.adapters[name] = self._tuned(folder)
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def _complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        name = body["model"]
        if name != self.name and name not in self.adapters:
            return 404, _error(f"The model `{name}` does not exist.", 404)
        model = self.model_for(name)
        engine = self._base if model == self.name else self.adapters[model]
        with self._lock:
            engine.stop_ids = frozenset(body["stop_token_ids"])
            [row] = engine.sample(
                [tuple(body["prompt"])],
                Sampling(body["max_tokens"], body["temperature"]),
                [body["seed"]],
            )
        choice = {
            "index": 0,
            "text": row.text,
            "finish_reason": row.finish,
            "token_ids": list(row.token_ids),
            "logprobs": {"token_logprobs": list(row.logprobs)},
        }
        return 200, {"object": "text_completion", "model": name, "choices": [choice]}

    def rebase(self, folder: Path) -> None:
        """Serve another base under the same name."""
        self.folder, policy = folder, load_policy(str(folder))
        self._base = TorchEngine(policy.model, policy.renderer)

    def _tuned(self, folder: Path) -> TorchEngine:
        from peft import PeftModel

        with LOADING:
            model = PeftModel.from_pretrained(deepcopy(self._base.model), str(folder)).eval()
            return TorchEngine(model, self._base.renderer)


def _error(message: str, status: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": "Error", "param": None, "code": status}}
