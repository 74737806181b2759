"""One interface for sampling and log-probabilities, and its in-process implementation.

Nothing above this layer may assume that the model lives in this process: channels and measures
hand over token ids and get plain numbers back. Shared beginnings of prompts are computed once.
"""

import copy
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from fastslow.policy.adapters import adapter_fingerprint
from fastslow.policy.render import Renderer
from fastslow.policy.trie import completion_logits, score_completions
from fastslow.types import Completion, Sampling, TokenIds

MIN_TRUNK_TOKENS = 8
"""Prompts that share fewer leading tokens than this are not worth a cache of their own."""
MAX_BATCH_ROWS = 64
"""Rows decoded together."""
MAX_TRUNKS = 16
"""Caches of shared beginnings kept; a fast phase goes back and forth between its texts."""


class Engine(Protocol):
    """Draws completions and scores them under the present weights."""

    num_rollouts: int
    """Completions drawn since the engine was made: the unit every budget is counted in."""

    def sample(
        self, prompts: Sequence[TokenIds], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """Draw one completion per prompt.

        Args:
            prompts: Token ids, none empty; repeat a prompt for several completions of it.
            sampling: Limit and temperature.
            seeds: One per prompt. A row's draws depend on its seed alone, not on its batch.

        Returns:
            Completions in the order of `prompts`.
        """
        ...

    def logprobs(
        self, prompts: Sequence[TokenIds], completions: Sequence[TokenIds], *, adapter: bool = True
    ) -> list[tuple[float, ...]]:
        """Natural-log probability of each completion token at temperature 1.

        Args:
            prompts: Token ids before each completion.
            completions: Token ids to score.
            adapter: False scores under the base weights.
        """
        ...

    def kl_to_base(
        self, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
    ) -> list[tuple[float, ...]]:
        """Exact KL(tuned || base) in nats at each completion position, same context for both.

        Over the whole vocabulary; >= 0 up to rounding, all zeros without an adapter.
        """
        ...


@dataclass(frozen=True)
class PrefixGroup:
    """Prompts with a common beginning."""

    trunk: TokenIds
    """The shared leading tokens; shorter than every member, possibly empty."""
    members: tuple[int, ...]
    """Indices into the prompts."""


def shared_prefixes(prompts: Sequence[TokenIds]) -> list[PrefixGroup]:
    """Cut prompts into groups by their leading tokens.

    Sorted prompts stay together as long as each shares at least `MIN_TRUNK_TOKENS`, and half of
    the group's shared beginning so far, with the next.

    Returns:
        Groups that hold every index once; each trunk leaves its members at least one token.
    """
    order = sorted(range(len(prompts)), key=lambda i: prompts[i])
    groups: list[PrefixGroup] = []
    members: list[int] = []
    trunk: TokenIds = ()
    for index in order:
        shared = _common(trunk, prompts[index])
        if members and shared >= MIN_TRUNK_TOKENS and 2 * shared >= len(trunk):
            members.append(index)
            trunk = trunk[:shared]
            continue
        if members:
            groups.append(PrefixGroup(trunk, tuple(members)))
        members, trunk = [index], prompts[index][:-1]
    if members:
        groups.append(PrefixGroup(trunk, tuple(members)))
    return groups


def _common(a: TokenIds, b: TokenIds) -> int:
    """Length of the common beginning, leaving `b` at least one token."""
    limit = min(len(a), len(b) - 1)
    return next((i for i in range(limit) if a[i] != b[i]), limit)


class TorchEngine:
    """The engine over a transformers model in this process.

    Args:
        model: A causal language model, with or without a PEFT adapter.
        renderer: Decodes completions; its tokenizer names the stop token.
    """

    def __init__(self, model: Any, renderer: Renderer) -> None:
        self.model = model
        self.renderer = renderer
        self.stop_ids = frozenset({*_stop_ids(model, renderer.tokenizer), renderer.stop_id})
        self.num_rollouts = 0
        self._trunks: OrderedDict[tuple[str, TokenIds], Any] = OrderedDict()

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[TokenIds], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """See `Engine.sample`: the KV of a shared beginning is computed once, then branched."""
        done: list[Completion | None] = [None] * len(prompts)
        weights = adapter_fingerprint(self.model)
        with self._evaluating():
            for group in shared_prefixes(prompts):
                trunk = self._trunk_cache(group.trunk, weights)
                for start in range(0, len(group.members), MAX_BATCH_ROWS):
                    rows = group.members[start : start + MAX_BATCH_ROWS]
                    suffixes = [prompts[i][len(group.trunk) :] for i in rows]
                    generators = [torch.Generator().manual_seed(seeds[i]) for i in rows]
                    drawn = self._branch(trunk, suffixes, sampling, generators)
                    for index, completion in zip(rows, drawn, strict=True):
                        done[index] = completion
        self.num_rollouts += len(prompts)
        return [completion for completion in done if completion is not None]

    @torch.no_grad()
    def logprobs(
        self, prompts: Sequence[TokenIds], completions: Sequence[TokenIds], *, adapter: bool = True
    ) -> list[tuple[float, ...]]:
        """See `Engine.logprobs`."""
        with self._evaluating(), nullcontext() if adapter else self.base_weights():
            scored = score_completions(self.model, prompts, completions)
        return [
            tuple(row[: len(completion)])
            for row, completion in zip(scored.logprobs.tolist(), completions, strict=True)
        ]

    @torch.no_grad()
    def kl_to_base(
        self, prompts: Sequence[TokenIds], completions: Sequence[TokenIds]
    ) -> list[tuple[float, ...]]:
        """See `Engine.kl_to_base`."""
        with self._evaluating():
            tuned = completion_logits(self.model, prompts, completions)
            with self.base_weights():
                base = completion_logits(self.model, prompts, completions)
        p = torch.log_softmax(tuned.logits.double(), dim=-1)
        q = torch.log_softmax(base.logits.double(), dim=-1)
        divergence = (p.exp() * (p - q)).sum(-1).tolist()
        return [tuple(divergence[node] for node in path) for path in tuned.nodes]

    @contextmanager
    def base_weights(self) -> Iterator[None]:
        """Within it the model computes as the untouched base; the adapter stays in memory."""
        if hasattr(self.model, "disable_adapter"):
            with self.model.disable_adapter():
                yield
        else:
            yield

    def _trunk_cache(self, trunk: TokenIds, weights: str) -> Any:
        """KV of `trunk`, kept for as long as the weights stay what they are."""
        from transformers import DynamicCache

        key = (weights, trunk)
        if key not in self._trunks:
            cache = DynamicCache(config=self.model.config)
            if trunk:
                ids = torch.tensor([trunk], device=self.model.device)
                self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            self._trunks[key] = cache
            if len(self._trunks) > MAX_TRUNKS:
                self._trunks.popitem(last=False)
        self._trunks.move_to_end(key)
        return self._trunks[key]

    def _branch(
        self,
        trunk: Any,
        suffixes: Sequence[TokenIds],
        sampling: Sampling,
        generators: Sequence[torch.Generator],
    ) -> list[Completion]:
        """Continue the trunk's cache with each suffix, once per distinct suffix, and decode."""
        distinct = list(dict.fromkeys(suffixes))
        row_of = {suffix: row for row, suffix in enumerate(distinct)}
        cache = _expand(trunk, len(distinct))
        past = cache.get_seq_length()
        width = max(map(len, distinct))
        lengths = torch.tensor([len(s) for s in distinct])
        ids = torch.tensor([[*s, *[0] * (width - len(s))] for s in distinct])
        real = torch.arange(width) < lengths[:, None]
        mask = torch.cat([torch.ones(len(distinct), past, dtype=torch.bool), real], dim=1)
        ends, at_end = torch.unique(lengths - 1, return_inverse=True)
        positions = past + torch.arange(width).expand_as(ids)
        logits = self._forward(ids, mask, positions, cache, ends)
        last = logits[torch.arange(len(distinct)), at_end]

        branches = torch.tensor([row_of[suffix] for suffix in suffixes])
        cache.batch_select_indices(branches.to(self.model.device))
        return self._decode(
            cache, last[branches], mask[branches], past + lengths[branches], sampling, generators
        )

    def _decode(
        self,
        cache: Any,
        logits: Tensor,
        mask: Tensor,
        positions: Tensor,
        sampling: Sampling,
        generators: Sequence[torch.Generator],
    ) -> list[Completion]:
        """Draw token after token; finished rows leave the batch."""
        tokens: list[list[int]] = [[] for _ in generators]
        logprobs: list[list[float]] = [[] for _ in generators]
        live = list(range(len(generators)))
        for step in range(sampling.max_tokens):
            drawn, scored = draw(logits, sampling.temperature, [generators[r] for r in live])
            for row, token, logprob in zip(live, drawn.tolist(), scored.tolist(), strict=True):
                tokens[row].append(token)
                logprobs[row].append(logprob)
            going = [at for at, row in enumerate(live) if tokens[row][-1] not in self.stop_ids]
            if not going or step + 1 == sampling.max_tokens:
                break
            if len(going) < len(live):
                keep = torch.tensor(going)
                cache.batch_select_indices(keep.to(self.model.device))
                drawn, mask, positions = drawn[keep], mask[keep], positions[keep]
                live = [live[at] for at in going]
            mask = torch.cat([mask, torch.ones(len(live), 1, dtype=torch.bool)], dim=1)
            step_at = torch.zeros(1, dtype=torch.long)
            logits = self._forward(drawn[:, None], mask, positions[:, None], cache, step_at)[:, 0]
            positions = positions + 1
        return [
            Completion(
                token_ids=tuple(row),
                logprobs=tuple(scores),
                text=self.renderer.decode(row),
                finish="stop" if row[-1] in self.stop_ids else "length",
            )
            for row, scores in zip(tokens, logprobs, strict=True)
        ]

    def _forward(
        self, ids: Tensor, mask: Tensor, positions: Tensor, cache: Any, keep: Tensor
    ) -> Tensor:
        """Logits [rows, kept, vocabulary] at columns `keep`; the cache grows by all columns."""
        device = self.model.device
        output = self.model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device, torch.long),
            position_ids=positions.to(device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=keep.to(device),
        )
        logits = output.logits
        assert isinstance(logits, Tensor)
        return logits.float().cpu()

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Switch dropout and gradient checkpointing off, and restore the mode found."""
        training = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(training)


def draw(
    logits: Tensor, temperature: float, generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """Draw one token per row, each from its own generator, by inverting the distribution.

    Args:
        logits: [rows, vocabulary].
        temperature: 0 takes the most likely token.
        generators: One per row; each gives one number per call, whatever the other rows do.

    Returns:
        Token ids [rows] and their natural-log probability at temperature 1 [rows].
    """
    logits = logits.double()
    if temperature == 0:
        tokens = logits.argmax(-1)
    else:
        cumulative = torch.softmax(logits / temperature, -1).cumsum(-1)
        uniform = torch.stack(
            [torch.rand((), generator=g, dtype=torch.float64) for g in generators]
        )
        at = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)
        tokens = at[:, 0].clamp(max=logits.shape[-1] - 1)
    scored = torch.log_softmax(logits, -1).gather(-1, tokens[:, None])[:, 0]
    return tokens, scored


def _expand(trunk: Any, rows: int) -> Any:
    """A copy of a one-row cache with `rows` equal rows; the original stays usable."""
    cache = copy.deepcopy(trunk)
    if cache.get_seq_length():
        cache.batch_repeat_interleave(rows)
    return cache


def _stop_ids(model: Any, tokenizer: Any) -> set[int]:
    """Every token that ends a completion: the tokenizer's and the generation config's."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return {token for token in [*listed, tokenizer.eos_token_id] if token is not None}
