"""Which engine draws completions, and how the weights are spread over the trainer's processes."""

from collections.abc import Iterator
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, Tag

from fastslow.core.credentials import looks_like_key
from fastslow.core.keys import OURS, Model, key, kind_among

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values of `--max-lora-rank` that vLLM takes. Source: vllm/config/lora.py."""


def vllm_rank(rank: int) -> int | None:
    """The smallest `--max-lora-rank` that takes an adapter; None where all are too small."""
    return next((allowed for allowed in VLLM_RANKS if allowed >= rank), None)


class EngineKeys(Model):
    """Keys of every engine."""

    sharding: Literal["none", "fsdp2"] = key("none", "name", "PyTorch, torch.distributed.fsdp")
    """Whether each process of a run started by `torchrun` holds all weights, or `fsdp2`: a share of
    every layer, fetched from the others when it is needed. One process alone keeps all."""


class TorchConfig(EngineKeys):
    """Engine: the model that is trained draws its completions itself, in the same process."""

    kind: Literal["torch"] = key("torch", "name", OURS)
    """Which engine."""


class VllmConfig(EngineKeys):
    """Engine: vLLM servers draw the completions; the weights are trained here as ever.

    They get each version of the adapter as a folder. A key for them stands in the environment
    variable VLLM_API_KEY.
    """

    kind: Literal["vllm"] = key("vllm", "name", OURS)
    """Which engine."""
    urls: tuple[str, ...] = key((), "addresses", "required unless managed")
    """Servers that run already, e.g. `[http://127.0.0.1:8000]`; rows are dealt out among them."""
    managed: bool = key(False, "switch", OURS)
    """Whether the run starts a server of its own on this machine, and ends it."""
    python: str | None = key(None, "path", "FASTSLOW_VLLM_PYTHON, else .venv-vllm of `make vllm`")
    """Interpreter that has vLLM, for a managed server."""
    arguments: tuple[str, ...] = key((), "words", "vLLM's own")
    """Further arguments of a managed server, e.g. `[--gpu-memory-utilization, "0.4"]`."""
    adapters_dir: str | None = key(None, "folder", "served, in the run folder")
    """Where versions of the adapter lie while they are served. Servers must see it under the same
    path."""
    concurrency: PositiveInt = key(64, "requests", "rows of a batch of the torch engine")
    """Completions that one server is asked for at a time."""
    timeout_s: PositiveFloat = key(300.0, "seconds", OURS)
    """Longest wait for one completion, and for an adapter to be loaded. One that takes longer is
    asked for once more."""
    retries: NonNegativeInt = key(6, "requests", "ours: a minute, with waits that double from 1 s")
    """How often a request is made again that a server refused, dropped or failed at."""
    start_s: PositiveFloat = key(600.0, "seconds", OURS)
    """Longest wait for a managed server to come up."""

    def broken_rules(self) -> Iterator[tuple[str, str]]:
        """Yield (key path, message) for every rule between these keys that does not hold."""
        if self.managed == bool(self.urls):
            got = "both" if self.managed else "neither"
            yield (
                "engine.urls",
                "engine.kind: vllm takes the servers in engine.urls, or starts one of its own with "
                f"engine.managed: true; got {got}. Set one of them.",
            )
        if not self.managed and (self.python or self.arguments):
            name = "python" if self.python else "arguments"
            yield (
                f"engine.{name}",
                f"engine.{name} is for a server that the run starts itself, but engine.managed is "
                "false. Remove it, or set engine.managed to true.",
            )
        for word in self.arguments:
            if looks_like_key(word) or word.startswith(("--api-key", "--trust-remote-code")):
                yield (
                    "engine.arguments",
                    "engine.arguments holds a key, or allows a model to run code of its own. A key "
                    "belongs into the environment variable VLLM_API_KEY; remove the other.",
                )
        for index, url in enumerate(self.urls):
            if reason := _unfit_address(url):
                yield (
                    f"engine.urls.{index}",
                    f"engine.urls: {reason}. Expected an address such as http://127.0.0.1:8000; a "
                    "key belongs into the environment variable VLLM_API_KEY.",
                )
        if len(set(self.urls)) < len(self.urls):
            yield "engine.urls", "engine.urls has an address twice. List every server once."


def _unfit_address(url: str) -> str | None:
    """What is wrong with the address of a server, without what may be a password."""
    try:
        place = urlsplit(url)
        has_port = place.port != 0  # ValueError where it is no number
    except ValueError:
        return "an address cannot be read"
    if looks_like_key(url) or place.username or place.password or place.query or place.fragment:
        return "an address has more than a host and a port in it"
    if place.scheme not in ("http", "https") or not place.hostname or not has_port:
        return f"{url[:100]!r} is no address"
    return f"{url[:100]!r} has a path" if place.path not in ("", "/") else None


EngineConfig = Annotated[
    Annotated[TorchConfig, Tag("torch")] | Annotated[VllmConfig, Tag("vllm")],
    kind_among("torch", "vllm"),
]
"""The engine's section: one model per `kind`."""
