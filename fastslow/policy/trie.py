"""The packed layout: the unique tokens of some rows as one sequence.

Rows of a fast-slow batch repeat a few long texts and questions. They become a trie whose nodes are
laid out in one sequence: each node attends to its ancestors only and sits at its depth, so every
shared token goes through the model once, forward and backward.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fastslow.types import TokenIds


@dataclass(frozen=True)
class PackedTrie:
    """The unique tokens of some rows, as one sequence."""

    tokens: Int[Tensor, " tokens"]
    """Token id of each node; a parent comes before its children."""
    depth: Int[Tensor, " tokens"]
    """Position of each node in its row, from 0."""
    mask: Bool[Tensor, "tokens tokens"]
    """True where the row's node may attend to the column's: itself and its ancestors."""
    paths: tuple[tuple[int, ...], ...]
    """For each row, the node of each of its tokens."""


def pack(rows: Sequence[TokenIds]) -> PackedTrie:
    """Merge equal prefixes of `rows` into a trie and lay its nodes out in one sequence.

    Args:
        rows: Token ids, any lengths >= 1; equal rows share all their nodes.
    """
    tokens: list[int] = []
    depth: list[int] = []
    parents: list[int] = []
    children: dict[tuple[int, int], int] = {}
    paths = []
    for row in rows:
        node, path = -1, []
        for position, token in enumerate(row):
            child = children.get((node, token))
            if child is None:
                child = children[node, token] = len(tokens)
                tokens.append(token)
                depth.append(position)
                parents.append(node)
            node = child
            path.append(node)
        paths.append(tuple(path))
    mask = torch.eye(len(tokens), dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            mask[node, : parent + 1] |= mask[parent, : parent + 1]
    return PackedTrie(torch.tensor(tokens), torch.tensor(depth), mask, tuple(paths))
