"""The state of rows that are completed token by token, in two forms.

*Shared* keeps every prompt token once in a single sequence and gives each row a mask of its own
ancestors: nothing is copied, which wins for long shared texts and short answers. *Branched* gives
each row its own copy of the cache, for long answers. Both need attention whose mask is ours to
set; other models draw through `generating.py`.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fastslow.core.types import TokenIds
from fastslow.policy.engine.prefixes import PrefixGroup
from fastslow.policy.engine.trie import ancestor_mask, merge

TrunkCache: TypeAlias = Callable[[TokenIds], Any]
"""Gives the one-row cache of a text; it must not be changed."""


class SharedRows:
    """All rows in one sequence; a row attends to its own text, question and tokens by mask.

    For models with full attention in every layer. `groups` says which prompts begin alike.
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
        """Take the prompts in: texts from their caches, distinct question tokens once.

        Returns:
            Logits [rows, vocabulary] of each row's first token.
        """
        # one cached sequence of all texts, and below each text a trie of its members' questions
        self.cache = _joined(self.model, self.trunks)
        cached = self.cache.get_seq_length()
        tries = [
            merge([self.prompts[i][len(group.trunk) :] for i in group.members])
            for group in self.groups
        ]
        nodes = sum(len(trie.tokens) for trie in tries)

        # [nodes, cached + nodes]: a node attends to its own text and to its ancestors in the trie
        mask = torch.zeros(nodes, cached + nodes, dtype=torch.bool)
        last = torch.zeros(len(self.prompts), dtype=torch.long)  # [rows] -> node a row ends at
        depth: list[int] = []
        node, column = 0, 0
        for group, trie in zip(self.groups, tries, strict=True):
            rows, text = slice(node, node + len(trie.tokens)), len(group.trunk)
            mask[rows, column : column + text] = True
            mask[rows, cached + rows.start : cached + rows.stop] = ancestor_mask(trie.parents)
            depth += [text + position for position in trie.depth]
            for member, path in zip(group.members, trie.paths, strict=True):
                last[member] = node + path[-1]
            node, column = rows.stop, column + text

        # each row continues with the mask of its last node and the position after its prompt
        self.rows_mask = mask[last]
        self.positions = torch.tensor([len(prompt) for prompt in self.prompts])
        # logits [ends, vocabulary] of the distinct last nodes -> [rows, vocabulary]
        ends, end_of_row = torch.unique(last, return_inverse=True)
        tokens = torch.tensor([token for trie in tries for token in trie.tokens])
        return self._forward(tokens, mask, torch.tensor(depth), ends)[end_of_row]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these, ascending; their columns stay, masked for all others."""
        self.rows_mask, self.positions = self.rows_mask[rows], self.positions[rows]

    def advance(self, tokens: Tensor) -> Tensor:
        """Append one token to each row; logits [rows, vocabulary] of the next."""
        # [rows, columns] -> [rows, columns + rows]: every row's new token is a column of all, open
        # to its own row alone
        itself = torch.eye(len(tokens), dtype=torch.bool)
        self.rows_mask = torch.cat([self.rows_mask, itself], dim=1)
        every = torch.arange(len(tokens))
        logits = self._forward(tokens, self.rows_mask, self.positions, every)
        self.positions = self.positions + 1
        return logits

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, columns: Tensor) -> Tensor:
        mask = mask[None, None]  # [1, 1, nodes, columns]: a mask of our own for every node
        return _logits(self.model, self.cache, ids[None], mask, positions[None], columns)[0]


class BranchedRows:
    """Each row with its own copy of the cache, made once its question has been computed.

    All prompts begin with `trunk`, which may be empty, and are longer.
    """

    def __init__(
        self, model: Any, prompts: Sequence[TokenIds], trunk: TokenIds, trunk_cache: TrunkCache
    ) -> None:
        self.model = model
        self.suffixes = [prompt[len(trunk) :] for prompt in prompts]
        self.trunk = trunk_cache(trunk)

    def start(self) -> Tensor:
        """As `SharedRows.start`: each distinct question once, then one branch per row."""
        # the text's cache, one row, copied to the distinct questions
        questions = list(dict.fromkeys(self.suffixes))
        row_of = {question: row for row, question in enumerate(questions)}
        self.cache = copy.deepcopy(self.trunk)
        past = self.cache.get_seq_length()
        if past:
            self.cache.batch_repeat_interleave(len(questions))

        # [questions, width] padded on the right, mask [questions, past + width]
        width = max(map(len, questions))
        lengths = torch.tensor([len(question) for question in questions])
        ids = torch.tensor([[*q, *[0] * (width - len(q))] for q in questions])
        is_token = torch.arange(width) < lengths[:, None]
        mask = torch.cat([torch.ones(len(questions), past, dtype=torch.bool), is_token], dim=1)
        positions = past + torch.arange(width).expand_as(ids)

        # logits of the columns that end some question, [questions, ends, vocabulary]; of each
        # question its own end, [questions, vocabulary]
        ends, own_end = torch.unique(lengths - 1, return_inverse=True)
        logits = self._forward(ids, mask, positions, ends)[torch.arange(len(questions)), own_end]

        # [questions] -> [rows]: cache, mask and logits are copied to the rows that ask the question
        branches = torch.tensor([row_of[suffix] for suffix in self.suffixes])
        self.cache.batch_select_indices(branches.to(self.model.device))
        self.mask, self.positions = mask[branches], past + lengths[branches]
        return logits[branches]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these, given as ascending indices."""
        self.cache.batch_select_indices(rows.to(self.model.device))
        self.mask, self.positions = self.mask[rows], self.positions[rows]

    def advance(self, tokens: Tensor) -> Tensor:
        """As `SharedRows.advance`."""
        new = torch.ones(len(tokens), 1, dtype=torch.bool)
        self.mask = torch.cat([self.mask, new], dim=1)
        only = torch.zeros(1, dtype=torch.long)
        logits = self._forward(tokens[:, None], self.mask, self.positions[:, None], only)[:, 0]
        self.positions = self.positions + 1
        return logits

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, columns: Tensor) -> Tensor:
        return _logits(self.model, self.cache, ids, mask.long(), positions, columns)


def read_trunk(model: Any, trunk: TokenIds) -> Any:
    """The one-row cache of `trunk`, which may be empty."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config)
    if trunk:
        ids = torch.tensor([trunk], device=model.device)
        model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache


SPAN = 64
"""Tokens that are summed together before one of them is looked for."""


def draw(
    logits: Tensor, temperature: float, generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """Draw one token per row of float32 `logits` [rows, vocabulary], by inverting the distribution.

    Each generator gives one number per call, whatever the other rows do; none at temperature 0.
    Generators are on the CPU wherever the logits are.

    Returns:
        Token ids [rows] and their natural-log probability at temperature 1 [rows], float64.
    """
    largest, tokens = logits.max(-1)
    below = logits - largest[:, None]  # [rows, vocabulary], 0 at most
    if temperature:
        draws = [torch.rand((), generator=g, dtype=torch.float64) for g in generators]
        tokens = _invert((below / temperature).exp_(), torch.stack(draws).to(logits.device))
    logit = logits.gather(-1, tokens[:, None])[:, 0].double() - largest.double()
    # sums in float64: 50,000 terms in float32 would lose what a ratio of probabilities shows
    return tokens, logit - below.exp_().sum(-1, dtype=torch.float64).log()


def _invert(weights: Tensor, uniform: Tensor) -> Tensor:
    """First token whose cumulative weight exceeds so much of the sum; weights [rows, vocabulary].

    Whole spans are passed over by their sums; only the one that the token is in is gone through.
    """
    missing = -weights.shape[1] % SPAN
    spans = torch.nn.functional.pad(weights, (0, missing))
    spans = spans.view(len(weights), -1, SPAN)
    sums = spans.sum(-1, dtype=torch.float64)
    cumulative = sums.cumsum(-1)  # [rows, spans]
    target = uniform[:, None] * cumulative[:, -1:]
    span = torch.searchsorted(cumulative, target, right=True).clamp(max=cumulative.shape[1] - 1)
    before = (cumulative - sums).gather(1, span)
    inside = spans[torch.arange(len(spans)), span[:, 0]].cumsum(-1, dtype=torch.float64)
    offset = torch.searchsorted(inside, target - before, right=True).clamp(max=SPAN - 1)
    return (span * SPAN + offset)[:, 0].clamp(max=weights.shape[1] - 1)


def _logits(
    model: Any, cache: Any, ids: Tensor, mask: Tensor, positions: Tensor, columns: Tensor
) -> Tensor:
    """One pass after the cache, which grows by `ids` [rows, width].

    Returns:
        Logits [rows, columns, vocabulary] at some columns of the width, in float32, where the model
        is: a row of them is far larger than what is drawn from it.
    """
    output = model(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        position_ids=positions.to(model.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=columns.to(model.device),
    )
    logits: Tensor = output.logits.float()
    return logits


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
