"""The in-process engine: samples and scores with a torch model, shared beginnings computed once.

Batches become smaller where the memory does not take them.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import groupby
from typing import Any, TypeAlias

import torch

from fastslow.core.types import Completion, Sampling, TokenIds
from fastslow.policy.adapter.lora import adapter_fingerprint
from fastslow.policy.adapter.parts import adds_something
from fastslow.policy.engine.decoding import BranchedRows, SharedRows, draw, read_trunk
from fastslow.policy.engine.generating import Drawing, generate_rows
from fastslow.policy.engine.head import CHUNK_NODES, evaluating
from fastslow.policy.engine.interface import TokenComparison
from fastslow.policy.engine.layouts import predict, score_completions
from fastslow.policy.engine.memory import free_memory, out_of_memory
from fastslow.policy.engine.prefixes import shared_prefixes
from fastslow.policy.engine.sharing import caches, pads_left, why_not_shared
from fastslow.policy.render import Renderer
from fastslow.policy.saved import BASE

logger = logging.getLogger(__name__)

MAX_BATCH_ROWS = 64
"""Rows decoded together."""
MAX_SHARED_TOKENS = 64
"""Completions that may grow longer than this are decoded branched: masked columns pile up."""
MAX_TRUNKS = 16
"""Caches of shared beginnings kept; a fast phase goes back and forth between its texts."""


DecodeBatch: TypeAlias = Callable[[Sequence[torch.Generator]], list[Completion]]
"""Draws the completions of a batch, one generator per row."""


def ending_tokens(model: Any, renderer: Renderer) -> frozenset[int]:
    """Every token that ends a completion: the tokenizer's and the generation config's."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset({*listed, renderer.tokenizer.eos_token_id, renderer.stop_id} - {None})


class TorchEngine:
    """Sampler and scorer over a transformers model in this process; one caller at a time."""

    def __init__(self, model: Any, renderer: Renderer) -> None:
        self.model = model
        self.renderer = renderer
        self.stop_ids = ending_tokens(model, renderer)
        self.num_rollouts = self.num_tokens = 0
        self._max_rows = MAX_BATCH_ROWS
        self._trunks: OrderedDict[tuple[str, TokenIds], Any] = OrderedDict()
        self._busy = threading.RLock()  # switching the adapter off would reach every thread

    @torch.no_grad()
    def sample(
        self,
        prompts: Sequence[TokenIds],
        sampling: Sampling,
        seeds: Sequence[int],
        *,
        adapter: bool = True,
    ) -> list[Completion]:
        """See `Sampler.sample`: a shared beginning is computed once, and kept for later calls."""
        completions: dict[int, Completion] = {}
        is_adapted = adapter and adds_something(self.model)
        base = nullcontext if is_adapted else self.base_weights
        with self._busy, evaluating(self.model), base():
            while len(completions) < len(prompts):
                missing = [index for index in range(len(prompts)) if index not in completions]
                try:
                    waiting = [prompts[i] for i in missing]
                    for batch, decode in self._batches(waiting, sampling, is_adapted):
                        rows = [missing[index] for index in batch]
                        generators = [torch.Generator().manual_seed(seeds[i]) for i in rows]
                        batch_completions = decode(generators)
                        completions.update(zip(rows, batch_completions, strict=True))
                except (RuntimeError, MemoryError) as error:
                    words = out_of_memory(error)
                    if words is None or self._max_rows == 1:
                        raise
                else:
                    continue
                self._make_room(words)
        if adapter:
            self.num_rollouts += len(prompts)
            self.num_tokens += sum(len(draw.token_ids) for draw in completions.values())
        return [completions[index] for index in range(len(prompts))]

    def _make_room(self, words: str) -> None:
        """After an allocator's refusal: fewer rows at a time from here on, and no kept caches.

        A row's draws depend on its seed alone, so they stay what they are.
        """
        self._trunks.clear()
        free_memory()
        before, self._max_rows = self._max_rows, self._max_rows // 2
        logger.warning(
            "Out of memory while %d completions were drawn together (%s); %d from here on.",
            before,
            words,
            self._max_rows,
        )

    @torch.no_grad()
    def logprobs(
        self, prompts: Sequence[TokenIds], completions: Sequence[TokenIds], *, adapter: bool = True
    ) -> list[tuple[float, ...]]:
        """See `Scorer.logprobs`."""
        with self._busy, evaluating(self.model), nullcontext() if adapter else self.base_weights():
            scored = score_completions(self.model, prompts, completions)
        return [
            tuple(row[: len(completion)])
            for row, completion in zip(scored.logprobs.tolist(), completions, strict=True)
        ]

    @torch.no_grad()
    def kl_to_base(
        self, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
    ) -> list[tuple[float, ...]]:
        """See `Scorer.kl_to_base`."""
        return [both.kl_tuned_base for both in self.compare_to_base(prompts, completions)]

    @torch.no_grad()
    def compare_to_base(
        self, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
    ) -> list[TokenComparison]:
        """See `Scorer.compare_to_base`: in float64, some positions at a time."""
        with self._busy, evaluating(self.model):
            tuned = predict(self.model, prompts, completions)
            with self.base_weights():
                base = predict(self.model, prompts, completions)
        columns: tuple[list[float], ...] = ([], [], [], [])
        for start in range(0, len(tuned.states), CHUNK_NODES):
            nodes = slice(start, start + CHUNK_NODES)
            p = torch.log_softmax(tuned.logits(nodes).double(), dim=-1)
            q = torch.log_softmax(base.logits(nodes).double(), dim=-1)
            at_p, at_q, difference = p.exp(), q.exp(), p - q
            sums = (at_p * difference, -at_q * difference, -at_p * p, -at_q * q)
            for column, values in zip(columns, sums, strict=True):
                column += values.sum(-1).tolist()
        return [
            TokenComparison(*(tuple(column[node] for node in path) for column in columns))
            for path in tuned.nodes
        ]

    @contextmanager
    def base_weights(self) -> Iterator[None]:
        """Within it the model computes as the untouched base; the adapter stays in memory."""
        off = self.model.disable_adapter if hasattr(self.model, "disable_adapter") else nullcontext
        with self._busy, off():
            yield

    def _batches(
        self, prompts: Sequence[TokenIds], sampling: Sampling, adapter: bool
    ) -> Iterator[tuple[list[int], DecodeBatch]]:
        """Cut the prompts into batches that can be decoded together, with what decodes them."""
        if why_not_shared(self.model) is not None:
            for rows in self._alike(prompts):
                picked = [prompts[i] for i in rows]
                yield rows, partial(self._generate, picked, sampling)
            return
        weights = adapter_fingerprint(self.model) if adapter else BASE
        trunk_cache = partial(self._trunk_cache, weights)
        groups = shared_prefixes(prompts, self.stop_ids)
        if sampling.max_tokens <= MAX_SHARED_TOKENS:
            order = [i for group in groups for i in group.members]
            for start in range(0, len(order), self._max_rows):
                rows = order[start : start + self._max_rows]
                picked = [prompts[i] for i in rows]
                together = shared_prefixes(picked, self.stop_ids)
                state = SharedRows(self.model, picked, together, trunk_cache)
                yield rows, partial(self._decode, state, sampling)
            return
        for group in groups:
            for start in range(0, len(group.members), self._max_rows):
                rows = list(group.members[start : start + self._max_rows])
                picked = [prompts[i] for i in rows]
                branched = BranchedRows(self.model, picked, group.trunk, trunk_cache)
                yield rows, partial(self._decode, branched, sampling)

    def _alike(self, prompts: Sequence[TokenIds]) -> Iterator[list[int]]:
        """Batches for `generate`: neighbours by length, of one length where padding is seen."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        padded = pads_left(self.model)
        for _, members in groupby(order, key=lambda i: padded or len(prompts[i])):
            rows = list(members)
            for start in range(0, len(rows), self._max_rows):
                yield rows[start : start + self._max_rows]

    def _trunk_cache(self, weights: str, trunk: TokenIds) -> Any:
        """KV of `trunk`, kept for as long as the weights stay what they are."""
        key = (weights, trunk)
        if key not in self._trunks:
            self._trunks[key] = read_trunk(self.model, trunk)
            if len(self._trunks) > MAX_TRUNKS:
                self._trunks.popitem(last=False)
        self._trunks.move_to_end(key)
        return self._trunks[key]

    def _generate(
        self,
        prompts: Sequence[TokenIds],
        sampling: Sampling,
        generators: Sequence[torch.Generator],
    ) -> list[Completion]:
        """Draw through transformers' `generate`."""
        drawing = Drawing(sampling.temperature, generators, self.stop_ids)
        generate_rows(self.model, prompts, sampling.max_tokens, drawing, cache=caches(self.model))
        return self._completions(drawing.tokens, drawing.logprobs)

    def _decode(
        self,
        state: SharedRows | BranchedRows,
        sampling: Sampling,
        generators: Sequence[torch.Generator],
    ) -> list[Completion]:
        """Draw token after token; finished rows leave the batch."""
        tokens: list[list[int]] = [[] for _ in generators]
        logprobs: list[list[float]] = [[] for _ in generators]
        live = list(range(len(generators)))
        logits = state.start()
        for step in range(sampling.max_tokens):
            next_tokens, scored = draw(logits, sampling.temperature, [generators[r] for r in live])
            draws = zip(live, next_tokens.tolist(), scored.tolist(), strict=True)
            for row, token, logprob in draws:
                tokens[row].append(token)
                logprobs[row].append(logprob)
            going = [i for i, row in enumerate(live) if tokens[row][-1] not in self.stop_ids]
            if not going or step + 1 == sampling.max_tokens:
                break
            if len(going) < len(live):
                unfinished = torch.tensor(going)
                state.keep(unfinished)
                next_tokens, live = next_tokens.cpu()[unfinished], [live[i] for i in going]
            logits = state.advance(next_tokens)
        return self._completions(tokens, logprobs)

    def _completions(
        self, tokens: Sequence[Sequence[int]], logprobs: Sequence[Sequence[float]]
    ) -> list[Completion]:
        return [
            Completion(
                token_ids=tuple(row),
                logprobs=tuple(scores),
                text=self.renderer.decode(row),
                finish="stop" if row[-1] in self.stop_ids else "length",
            )
            for row, scores in zip(tokens, logprobs, strict=True)
        ]
