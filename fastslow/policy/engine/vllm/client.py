"""One vLLM server behind its OpenAI-compatible address: asked again in bounds, never believed.

Protocol: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html, and
https://docs.vllm.ai/en/latest/features/lora.html for adapters.
"""

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import httpx

from fastslow.core.credentials import without_keys
from fastslow.core.errors import EngineError
from fastslow.core.files import parse_json
from fastslow.core.text import shorten
from fastslow.core.types import Sampling, TokenIds

BACKOFF_S = 1.0
"""Wait before a request is made again; doubles with every attempt."""
CONNECT_S = 10.0
"""Longest wait for a connection."""
LONGEST_REASON = 400
"""Characters of a server's message that are repeated."""
OVERLOADED = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
"""Statuses that pass, whatever was asked."""
FAILING = (*OVERLOADED, HTTPStatus.INTERNAL_SERVER_ERROR)
"""Those that may pass."""
NEUTRAL = {
    "n": 1,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "logprobs": 0,
    "return_token_ids": True,
    "ignore_eos": True,
}
"""No setting of a model's generation config reaches a draw; our stop tokens alone end it."""


class NotServed(Exception):
    """The server does not know an adapter: it is a new one, or others unloaded it."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """An entry of a server's list of models."""

    name: str
    root: str
    """Folder or hub id that it was loaded from."""
    is_base: bool


@dataclass(frozen=True, slots=True)
class Draw:
    """A completion as a server sent it, checked for form."""

    token_ids: TokenIds
    logprobs: tuple[float, ...]
    """Natural-log probability of each token at temperature 1."""


class Server:
    """A server that adapters are loaded on and completions are drawn from; for many threads.

    `cause` says why the server's process has ended, where that is known. `url` has no path.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_s: float = 300.0,
        retries: int = 6,
        concurrency: int = 64,
        cause: Callable[[], str | None] = lambda: None,
    ) -> None:
        self.url = url.rstrip("/")
        self.num_failures = 0
        """Requests that were made again. After one, it may be another server that answers."""
        self._retries = retries
        self._cause = cause
        self._secrets = [key] if key else []
        self._over = threading.Event()
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_S, pool=None),
            limits=httpx.Limits(max_connections=concurrency),
            trust_env=False,  # a proxy is no place for adapters and rewards
        )

    def is_healthy(self) -> bool:
        """Whether it answers now, asked once."""
        try:
            return self._http.get("/health", timeout=CONNECT_S).is_success
        except httpx.HTTPError:
            return False

    def models(self) -> list[ServedModel]:
        """What it serves, the base first.

        Raises:
            EngineError: It does not answer, or not as vLLM does.
        """
        try:
            return [
                ServedModel(str(card["id"]), str(card.get("root") or ""), not card.get("parent"))
                for card in self._ask("GET", "/v1/models")["data"]
            ]
        except (LookupError, TypeError, AttributeError) as err:
            raise self._error(f"its list of models is not one of vLLM, got {err!r}") from err

    def load(self, name: str, folder: str) -> None:
        """Have it serve the adapter in `folder`, a path on its machine, as `name`.

        Raises:
            EngineError: It refuses, e.g. for its rank, or takes no adapters.
        """
        body = {"lora_name": name, "lora_path": folder, "load_inplace": False}
        # a refusal has status 500 too, e.g. for a rank that is too high
        reply = self._send("POST", "/v1/load_lora_adapter", body, passing=OVERLOADED)
        if reply.is_success:
            return
        words = self._words(reply)
        if "already been loaded" in words:  # by another process of the run, under the same name
            return
        advice = (
            "Start it with --enable-lora, --max-lora-rank of at least the run's ranks and "
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its environment, on a machine that has the "
            "folder under the same path (engine.adapters_dir)."
        )
        raise self._error(f"it does not load the adapter in {folder}, got {words}. {advice}")

    def unload(self, name: str) -> bool:
        """Have it forget an adapter; whether it answered."""
        body = {"lora_name": name}
        try:
            self._http.post("/v1/unload_lora_adapter", json=body, timeout=CONNECT_S)
        except httpx.HTTPError:
            return False
        return True

    def draw(
        self, model: str, prompt: TokenIds, sampling: Sampling, seed: int, stops: Sequence[int]
    ) -> Draw:
        """One completion; ends with one of `stops` or at the limit of tokens.

        Raises:
            NotServed: There is no model of this name.
            EngineError: It does not answer, or with something other than what it was asked for.
        """
        body: dict[str, Any] = NEUTRAL | {
            "model": model,
            "prompt": list(prompt),
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "seed": seed,
            "stop_token_ids": list(stops),
        }
        reply = self._ask("POST", "/v1/completions", body)
        try:
            [choice] = reply["choices"]
            tokens = tuple(choice["token_ids"])
            logprobs = tuple(map(float, choice["logprobs"]["token_logprobs"]))
            answering = reply["model"]
        except (LookupError, TypeError, ValueError, AttributeError) as err:
            raise self._error(
                f"a completion came without its tokens and log-probabilities, got {err!r}. vLLM "
                "0.10 or newer is needed"
            ) from err
        if answering != model:
            raise self._error(f"{model} was asked and {answering!r} answered")
        if reason := _unfit(tokens, logprobs, sampling.max_tokens, stops):
            raise self._error(f"a completion {reason}")
        return Draw(tokens, logprobs)

    def close(self) -> None:
        """End all that is waited for."""
        self._over.set()
        self._http.close()

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        """The content of the answer to a request."""
        reply = self._send(method, path, body)
        if reply.status_code == HTTPStatus.NOT_FOUND and body is not None:
            raise NotServed(self._words(reply))
        if not reply.is_success:
            raise self._error(f"it refuses a request, got {self._words(reply)}")
        try:
            return parse_json(reply.content)
        except ValueError as err:
            raise self._error(f"its answer is no JSON, {err}") from err

    def _send(
        self, method: str, path: str, body: Any, passing: Collection[int] = FAILING
    ) -> httpx.Response:
        """The answer to a request, made again while its status is one of `passing`."""
        reason, patience = "", 1  # a request that took too long is made once more
        for attempt in range(self._retries + 1):
            if attempt:
                self.num_failures += 1
                self._over.wait(BACKOFF_S * 2 ** (attempt - 1))
            if self._over.is_set():
                break
            try:
                reply = self._http.request(method, path, json=body)
            except httpx.TimeoutException as err:
                reason, patience = f"{type(err).__name__}, no answer in time", patience - 1
            except (httpx.HTTPError, RuntimeError) as err:  # RuntimeError: closed by `close`
                reason = shorten(f"{type(err).__name__}: {err}", LONGEST_REASON)
            else:
                if reply.status_code not in passing:
                    return reply
                reason = self._words(reply)
            if (ended := self._cause()) is not None:
                raise EngineError(f"engine: {ended}")
            if patience < 0:
                break
        raise self._error(f"it does not answer, got {reason or 'an end of the run'}")

    def _words(self, reply: httpx.Response) -> str:
        """Status and message of a refusal, in one line."""
        text = " ".join(without_keys(reply.text, self._secrets).split())
        return shorten(f"HTTP {reply.status_code}: {text}", LONGEST_REASON)

    def _error(self, words: str) -> EngineError:
        return EngineError(f"engine: the vLLM server {self.url}: {words}.")


def _unfit(
    tokens: TokenIds, logprobs: Sequence[float], max_tokens: int, stops: Sequence[int]
) -> str | None:
    """What is wrong with a completion; None where nothing is."""
    if not all(isinstance(token, int) and token >= 0 for token in tokens):
        return "has tokens that are none"
    if not 0 < len(tokens) <= max_tokens or len(logprobs) != len(tokens):
        return f"has {len(tokens)} tokens of at most {max_tokens}, {len(logprobs)} with logprobs"
    if any(token in stops for token in tokens[:-1]):
        return "goes on after a token that ends it"
    if len(tokens) < max_tokens and tokens[-1] not in stops:
        return (
            f"was cut off after {len(tokens)} of {max_tokens} tokens: a generation config is in "
            "force there. Start the server with --generation-config vllm"
        )
    return None
