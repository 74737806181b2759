"""A `Sampler` over vLLM servers: every draw under weights that a proof has shown to be the run's.

Loss, exact divergences and entropies stay with the trainer. A draw depends on its seed, up to the
rounding of sums, which in a server depends on what else is computed at the same time.
"""

import contextlib
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import TypeVar

from fastslow.core.distributed import by_leader, from_leader, is_leader, process_index
from fastslow.core.errors import EngineError
from fastslow.core.types import Completion, Sampling, TokenIds
from fastslow.policy.adapter.lora import adapter_fingerprint
from fastslow.policy.adapter.parts import is_switched_off
from fastslow.policy.engine.settings import VllmConfig, vllm_rank
from fastslow.policy.engine.torch_engine import ending_tokens
from fastslow.policy.engine.vllm.client import Draw, NotServed, Server
from fastslow.policy.engine.vllm.proofs import Floor, Proofs
from fastslow.policy.engine.vllm.publish import Versions
from fastslow.policy.engine.vllm.server import (
    CPU_ARGUMENTS,
    KEY_VARIABLE,
    interpreter,
    managed_server,
)
from fastslow.policy.policy import Policy
from fastslow.policy.saved import BASE

T = TypeVar("T")

KEPT_VERSIONS = 8
"""Versions that stay loaded: an evaluation goes back and forth between those of stages."""
ROWS_PER_PROOF = 512
"""Completions after which a version is proven again: others may change what a server holds."""


class Place:
    """A server as this run uses it: its base, and which versions it has been proven to draw with.

    `draw` asks it all rows at once, in threads of its own.
    """

    def __init__(self, server: Server, concurrency: int, stops: Sequence[int]) -> None:
        self.server = server
        self.base = ""
        self.floor: Floor | None = None
        self.proven: dict[str, int] = {}
        """Name of the base and of each version to the completions drawn since its last proof."""
        self.lock = threading.RLock()
        self._num_failures = 0
        self._stops = stops
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="vllm")

    def draw(
        self, name: str, prompts: Sequence[TokenIds], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Draw]:
        """One completion per prompt under the model `name`; raises as `Server.draw`."""
        rows = [
            self._pool.submit(self.server.draw, name, prompt, sampling, seed, self._stops)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        try:
            draws = [row.result() for row in rows]
        except Exception:
            for row in rows:
                row.cancel()
            wait(rows)  # those in work end within the same bounds
            raise
        if name in self.proven:
            self.proven[name] += len(draws)
        return draws

    def was_interrupted(self) -> bool:
        """Whether a request failed since this was asked last; then nothing proven holds."""
        if self.server.num_failures == self._num_failures:
            return False
        self._num_failures = self.server.num_failures
        self.forget()
        return True

    def has_adapters(self) -> bool:
        """Whether it has what it was given; a server that was put in its place does not."""
        return self.proven.keys() <= {model.name for model in self.server.models()}

    def forget(self) -> None:
        """Take it for another server."""
        self.floor, self.proven = None, {}

    def close(self) -> None:
        """End its requests."""
        self.forget()
        self.server.close()
        self._pool.shutdown(cancel_futures=True)


class VllmSampler:
    """Draws completions from vLLM servers; see `Sampler`. May be asked by several threads.

    Args:
        policy: Whose weights are to be drawn with; renders, and scores for the proofs.
        servers: Asked in turn for equal shares of the rows of a call.
        versions: Where they read adapters from.
        prompts: Prompts of the run that proofs are asked with.
        concurrency: Completions that one server is asked for at a time.
    """

    def __init__(
        self,
        policy: Policy,
        servers: Sequence[Server],
        versions: Versions,
        prompts: Sequence[TokenIds],
        concurrency: int = 64,
    ) -> None:
        self.num_rollouts = self.num_tokens = 0
        self.swap_s = 0.0
        self._policy = policy
        self._versions = versions
        self._stops = ending_tokens(policy.model, policy.renderer)
        self._places = [Place(server, concurrency, sorted(self._stops)) for server in servers]
        self._proofs = Proofs(policy.scorer, prompts, policy.dtype)
        self._recent: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def sample(
        self,
        prompts: Sequence[TokenIds],
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        adapter: bool = True,
    ) -> list[Completion]:
        """See `Sampler.sample`.

        Raises:
            EngineError: A server does not answer, or draws with other weights than the policy's.
        """
        weights = self._present_weights() if adapter else BASE
        started = time.monotonic()
        work = [(place, rows) for place, rows in self._shares(len(prompts)) if prompts[rows]]
        with ThreadPoolExecutor(len(self._places)) as pool:
            list(pool.map(lambda each: self._served(each[0], weights, str), work))
            swap_s = time.monotonic() - started

            def draw(place: Place, rows: slice) -> list[Draw]:
                request = partial(
                    place.draw, prompts=prompts[rows], sampling=sampling, seeds=seeds[rows]
                )
                return self._served(place, weights, request)

            shares = pool.map(lambda each: draw(*each), work)
            completions = {
                row: self._completion(draw)
                for (_, rows), draws in zip(work, shares, strict=True)
                for row, draw in zip(range(rows.start, rows.stop), draws, strict=True)
            }
        with self._lock:
            self.swap_s += swap_s
            if adapter:
                self.num_rollouts += len(prompts)
                self.num_tokens += sum(len(draw.token_ids) for draw in completions.values())
        return [completions[row] for row in range(len(prompts))]

    def prove(self) -> None:
        """Make sure that every server draws with the present weights, before anything is drawn.

        Raises:
            EngineError: See `sample`.
        """
        for place in self._places:
            self._served(place, self._present_weights(), str)

    def close(self) -> None:
        """Have the servers forget what they were given."""
        for place in self._places:
            names = place.proven.keys() - {place.base} if is_leader() else ()
            all(place.server.unload(name) for name in names)  # until it does not answer
            place.close()
        if is_leader():
            self._versions.clear()

    def _present_weights(self) -> str:
        """Fingerprint of what the policy computes with now."""
        model = self._policy.model
        return BASE if is_switched_off(model) else adapter_fingerprint(model)

    def _shares(self, number: int) -> list[tuple[Place, slice]]:
        """Rows of each server: neighbours, which may share a prompt, stay together."""
        count, offset = len(self._places), process_index()  # processes begin with different ones
        cuts = [number * i // count for i in range(count + 1)]
        return [
            (self._places[(i + offset) % count], slice(cuts[i], cuts[i + 1])) for i in range(count)
        ]

    def _served(self, place: Place, weights: str, work: Callable[[str], T]) -> T:
        """What `work` gives for the name of a model that draws with these weights, proven to.

        A server that lost its adapters is given them again, once.
        """
        for is_last in (False, True):
            try:
                name = self._ready(place, weights)
                result = work(name)
                break
            except NotServed as err:
                place.forget()
                if is_last:
                    raise EngineError(
                        f"engine: the vLLM server {place.server.url} lost its adapter, got {err}."
                    ) from err
        if place.was_interrupted():
            self._ready(place, weights)  # whoever answered in the end is the right one
        return result

    def _ready(self, place: Place, weights: str) -> str:
        """Name of a model of the server that draws with these weights, proven to."""
        with place.lock:
            if place.was_interrupted() or not place.has_adapters():
                place.forget()
            if place.proven.get(place.base, ROWS_PER_PROOF) >= ROWS_PER_PROOF:
                self._meet(place)
            if weights == BASE:
                return place.base
            name = self._versions.name(weights)
            if name not in place.proven:
                self._make_room(weights)
                place.server.load(name, str(self._versions.write(self._policy.model, weights)))
            if place.proven.get(name, ROWS_PER_PROOF) >= ROWS_PER_PROOF:
                assert place.floor is not None
                draw = partial(place.draw, name)
                self._proofs.check(place.server.url, name, place.floor, draw)
                place.proven[name] = 0
            return name

    def _meet(self, place: Place) -> None:
        """Learn a server's base, and how far its log-probabilities are from the trainer's."""
        models = [model for model in place.server.models() if model.is_base]
        if not models:
            raise EngineError(f"engine: the vLLM server {place.server.url} serves no model.")
        place.base = models[0].name
        place.floor = self._proofs.floor(place.server.url, partial(place.draw, place.base))
        place.proven[place.base] = 0

    def _make_room(self, weights: str) -> None:
        """Note that a version is served; the leader takes away those that came first."""
        with self._lock:
            self._recent[weights] = None
            self._recent.move_to_end(weights)
            while is_leader() and len(self._recent) > KEPT_VERSIONS:
                oldest, _ = self._recent.popitem(last=False)
                for place in self._places:
                    if place.proven.pop(self._versions.name(oldest), None) is not None:
                        place.server.unload(self._versions.name(oldest))
                self._versions.remove(oldest)

    def _completion(self, draw: Draw) -> Completion:
        return Completion(
            token_ids=draw.token_ids,
            logprobs=draw.logprobs,
            text=self._policy.renderer.decode(draw.token_ids),
            finish="stop" if draw.token_ids[-1] in self._stops else "length",
        )


@contextlib.contextmanager
def vllm_sampler(
    policy: Policy,
    settings: VllmConfig,
    *,
    model: str,
    rank: int,
    prompts: Sequence[TokenIds],
    run: Path,
) -> Iterator[VllmSampler]:
    """A sampler for as long as a run lasts, proven to draw with the policy's present weights.

    In several processes each has one, of the same servers.

    Args:
        policy: See `VllmSampler`.
        settings: The engine's keys.
        model: Folder or hub id of the base, for a managed server.
        rank: The highest rank that the run's adapter will have; 0 without one.
        prompts: See `VllmSampler`.
        run: The run's folder.

    Raises:
        ConfigError: There is no interpreter for a managed server.
        EngineError: A server does not answer, or does not draw with the run's weights.
    """
    with contextlib.ExitStack() as stack:
        arguments = _arguments(policy, settings, model, rank)
        servers = _servers(stack, settings, arguments, run, cpu=policy.device == "cpu")
        start, place = from_leader((secrets.token_hex(4), run))
        folder = Path(settings.adapters_dir) if settings.adapters_dir else place / "served"
        versions = Versions(folder, place.name, start)
        by_leader(versions.clear)  # what a start that was cut off has left there
        sampler = VllmSampler(policy, servers, versions, prompts, settings.concurrency)
        stack.callback(sampler.close)
        sampler.prove()
        yield sampler


def _servers(
    stack: contextlib.ExitStack,
    settings: VllmConfig,
    arguments: Sequence[str],
    run: Path,
    *,
    cpu: bool,
) -> list[Server]:
    """The servers to ask; one of the run's own is started by the leader and ends with the stack."""
    make = partial(
        Server,
        timeout_s=settings.timeout_s,
        retries=settings.retries,
        concurrency=settings.concurrency,
    )
    if not settings.managed:
        return [make(url, key=os.environ.get(KEY_VARIABLE)) for url in settings.urls]
    servers: list[Server] = []

    def start() -> tuple[str, str]:
        python = interpreter(settings.python)
        process = stack.enter_context(managed_server(python, arguments, run, cpu=cpu))
        servers.append(make(process.url, key=process.key, cause=process.cause))
        process.wait_until_up(servers[0], settings.start_s)
        return process.url, process.key

    url, key = by_leader(start)
    return servers or [make(url, key=key)]


def _arguments(policy: Policy, settings: VllmConfig, model: str, rank: int) -> list[str]:
    """What a managed server is started with; the user's arguments come last, and so prevail."""
    words = ["--model", model, "--dtype", policy.dtype]
    words += ["--generation-config", "vllm", "--max-num-seqs", str(settings.concurrency)]
    words += ["--enable-prefix-caching", *(CPU_ARGUMENTS if policy.device == "cpu" else ())]
    if rank:
        words += ["--enable-lora", "--max-lora-rank", str(vllm_rank(rank) or rank)]
        words += ["--max-loras", "2", "--max-cpu-loras", str(KEPT_VERSIONS)]
    return [*words, *settings.arguments]
