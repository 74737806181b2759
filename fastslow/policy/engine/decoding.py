"""The state of rows that are being completed token by token, in two forms.

*Shared* keeps every prompt token once in a single sequence and gives each row a mask of its own
ancestors: nothing is copied, which wins for long shared texts and short answers. *Branched* gives
each row its own copy of the cache, for long answers and for models whose mask is not ours to give.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from fastslow.core.types import TokenIds
from fastslow.policy.engine.prefixes import PrefixGroup
from fastslow.policy.engine.trie import ancestor_mask, merge

TrunkCache: TypeAlias = Callable[[TokenIds], Any]
"""Gives the one-row cache of a text; it must not be changed."""


class DecodingState(Protocol):
    """Rows in progress."""

    def start(self) -> Tensor:
        """Take the prompts in; logits [rows, vocabulary] of each row's first token, on the CPU."""
        ...

    def keep(self, rows: Tensor) -> None:
        """Let go of all rows but these positions, ascending."""
        ...

    def advance(self, tokens: Tensor) -> Tensor:
        """Append one token to each row; logits [rows, vocabulary] of the next, on the CPU."""
        ...


class SharedRows:
    """All rows in one sequence; a row attends to its own text, question and tokens by mask.

    Args:
        model: A model with full attention in every layer.
        prompts: Token ids, none empty.
        groups: Which of them begin alike.
        trunk_cache: Keys and values of a shared beginning.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[TokenIds],
        groups: Sequence[PrefixGroup],
        trunk_cache: TrunkCache,
    ) -> None:
        self.model = model
        self.prompts = prompts
        self.groups = groups
        self.trunks = [trunk_cache(group.trunk) for group in groups]

    def start(self) -> Tensor:
        """See `DecodingState.start`: texts from their caches, distinct question tokens once."""
        self.cache = _joined(self.model, self.trunks)
        columns = self.cache.get_seq_length()
        tries = [
            merge([self.prompts[i][len(group.trunk) :] for i in group.members])
            for group in self.groups
        ]
        total = sum(len(part.tokens) for part in tries)
        mask = torch.zeros(total, columns + total, dtype=torch.bool)
        last = torch.zeros(len(self.prompts), dtype=torch.long)
        node, column = 0, 0
        for group, part in zip(self.groups, tries, strict=True):
            here, trunk = slice(node, node + len(part.tokens)), len(group.trunk)
            mask[here, column : column + trunk] = True
            mask[here, columns + node : columns + node + len(part.tokens)] = ancestor_mask(
                part.parents
            )
            for member, path in zip(group.members, part.paths, strict=True):
                last[member] = node + path[-1]
            node, column = here.stop, column + trunk
        self.rows_mask = mask[last]
        self.positions = torch.tensor([len(prompt) for prompt in self.prompts])
        depth = [
            len(group.trunk) + at
            for group, part in zip(self.groups, tries, strict=True)
            for at in part.depth
        ]
        kept, row_of = torch.unique(last, return_inverse=True)
        tokens = torch.tensor([token for part in tries for token in part.tokens])
        return self._forward(tokens, mask, torch.tensor(depth), kept)[row_of]

    def keep(self, rows: Tensor) -> None:
        """See `DecodingState.keep`; columns of finished rows stay, masked for all others."""
        self.rows_mask, self.positions = self.rows_mask[rows], self.positions[rows]

    def advance(self, tokens: Tensor) -> Tensor:
        """See `DecodingState.advance`."""
        itself = torch.eye(len(tokens), dtype=torch.bool)
        self.rows_mask = torch.cat([self.rows_mask, itself], dim=1)
        every = torch.arange(len(tokens))
        logits = self._forward(tokens, self.rows_mask, self.positions, every)
        self.positions = self.positions + 1
        return logits

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, kept: Tensor) -> Tensor:
        device = self.model.device
        output = self.model(
            input_ids=ids[None].to(device),
            attention_mask=mask[None, None].to(device),
            position_ids=positions[None].to(device),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=kept.to(device),
        )
        logits: Tensor = output.logits[0].float().cpu()
        return logits


class BranchedRows:
    """Each row with its own copy of the cache, made once its question has been computed.

    Args:
        model: Any causal language model with a cache.
        prompts: Token ids with a common beginning `trunk`, each longer than it.
        trunk: The common beginning, possibly empty.
        trunk_cache: Keys and values of a shared beginning.
    """

    def __init__(
        self,
        model: Any,
        prompts: Sequence[TokenIds],
        trunk: TokenIds,
        trunk_cache: TrunkCache,
    ) -> None:
        self.model = model
        self.suffixes = [prompt[len(trunk) :] for prompt in prompts]
        self.trunk = trunk_cache(trunk)

    def start(self) -> Tensor:
        """See `DecodingState.start`: each distinct question once, then one branch per row."""
        distinct = list(dict.fromkeys(self.suffixes))
        row_of = {suffix: row for row, suffix in enumerate(distinct)}
        self.cache = copy.deepcopy(self.trunk)
        past = self.cache.get_seq_length()
        if past:
            self.cache.batch_repeat_interleave(len(distinct))
        width = max(map(len, distinct))
        lengths = torch.tensor([len(suffix) for suffix in distinct])
        ids = torch.tensor([[*s, *[0] * (width - len(s))] for s in distinct])
        real = torch.arange(width) < lengths[:, None]
        mask = torch.cat([torch.ones(len(distinct), past, dtype=torch.bool), real], dim=1)
        ends, at_end = torch.unique(lengths - 1, return_inverse=True)
        positions = past + torch.arange(width).expand_as(ids)
        logits = self._forward(ids, mask, positions, ends)[torch.arange(len(distinct)), at_end]

        branches = torch.tensor([row_of[suffix] for suffix in self.suffixes])
        self.cache.batch_select_indices(branches.to(self.model.device))
        self.mask, self.positions = mask[branches], past + lengths[branches]
        return logits[branches]

    def keep(self, rows: Tensor) -> None:
        """See `DecodingState.keep`."""
        self.cache.batch_select_indices(rows.to(self.model.device))
        self.mask, self.positions = self.mask[rows], self.positions[rows]

    def advance(self, tokens: Tensor) -> Tensor:
        """See `DecodingState.advance`."""
        new = torch.ones(len(tokens), 1, dtype=torch.bool)
        self.mask = torch.cat([self.mask, new], dim=1)
        only = torch.zeros(1, dtype=torch.long)
        logits = self._forward(tokens[:, None], self.mask, self.positions[:, None], only)[:, 0]
        self.positions = self.positions + 1
        return logits

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, kept: Tensor) -> Tensor:
        device = self.model.device
        output = self.model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device, torch.long),
            position_ids=positions.to(device),
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=kept.to(device),
        )
        logits: Tensor = output.logits.float().cpu()
        return logits


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


def _joined(model: Any, trunks: Sequence[Any]) -> Any:
    """One cache that holds the trunks' columns one after the other."""
    from transformers import DynamicCache

    joined = DynamicCache(config=model.config)
    filled = [trunk for trunk in trunks if trunk.get_seq_length()]
    if filled:
        for layer in range(len(filled[0].layers)):
            keys = torch.cat([trunk.layers[layer].keys for trunk in filled], dim=2)
            values = torch.cat([trunk.layers[layer].values for trunk in filled], dim=2)
            joined.update(keys, values, layer)
    return joined
