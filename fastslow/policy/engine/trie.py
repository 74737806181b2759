"""The trie of some rows, and how it is laid out as one sequence for one forward pass.

Rows of a fast-slow batch repeat a few long texts and questions. Their trie holds every distinct
beginning once. `lay_out` puts its nodes in an order that attention can be computed on in few dense
pieces (`block_attention.py` does that); linear layers see one sequence of distinct tokens and
nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fastslow.core.types import TokenIds

BLOCK_TOKENS = 192
"""Tokens of one block at most. Larger blocks compute more scores that the mask throws away, smaller
ones start more kernels. Source: our choice; other sizes were not compared."""


@dataclass(frozen=True)
class Trie:
    """Rows merged by equal beginnings; nodes in the order they were first met."""

    tokens: tuple[int, ...]
    """Token id of each node; a parent comes before its children."""
    depth: tuple[int, ...]
    """Position of each node in its row, from 0."""
    parents: tuple[int, ...]
    """Node before each node; -1 at a row's start."""
    paths: tuple[tuple[int, ...], ...]
    """For each row, the node of each of its tokens."""


@dataclass(frozen=True)
class Block:
    """Neighbouring nodes whose attention is computed together."""

    own: slice
    """The nodes that ask."""
    seen: tuple[slice, ...]
    """The nodes they may look at, in pieces: common ancestors first, `own` last."""
    mask: Bool[Tensor, "own seen"]
    """True where the row's node may attend to the column's: itself and its ancestors."""


@dataclass(frozen=True)
class LaidOut:
    """A trie as one sequence."""

    tokens: Int[Tensor, " nodes"]
    """Token id of each node; a parent comes before its children."""
    depth: Int[Tensor, " nodes"]
    """Position of each node in its row, from 0."""
    paths: tuple[tuple[int, ...], ...]
    """For each row, the place of each of its tokens in the sequence."""
    blocks: tuple[Block, ...]
    """Every node once as one that asks, in order."""


def merge(rows: Sequence[TokenIds]) -> Trie:
    """Merge equal beginnings of `rows` into a trie.

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
    return Trie(tuple(tokens), tuple(depth), tuple(parents), tuple(paths))


def ancestor_mask(parents: Sequence[int]) -> Bool[Tensor, "nodes nodes"]:
    """True where the column's node is the row's or an ancestor of it.

    Args:
        parents: Node before each node, smaller than the node itself; -1 where there is none.
    """
    mask = torch.eye(len(parents), dtype=torch.bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            mask[node, : parent + 1] |= mask[parent, : parent + 1]
    return mask


def lay_out(trie: Trie, limit: int = BLOCK_TOKENS) -> LaidOut:
    """Order the nodes of `trie` in blocks of at most `limit` nodes.

    All nodes of a block hang below one point of the trie, whose ancestors they all see. Below a
    point, subtrees that fit in a block are kept whole and share blocks; of one that does not, the
    unbranched beginning comes first and its end becomes a point of its own.
    """
    order: list[int] = []
    blocks: list[Block] = []
    place: dict[int, int] = {}
    for point, nodes in _cut(trie, limit):
        start = len(order)
        for node in nodes:
            place[node] = len(order)
            order.append(node)
        own = slice(start, len(order))
        before = [place[node] for node in _ancestors(trie, point)]
        inside = ancestor_mask([place.get(trie.parents[node], -1) - start for node in nodes])
        outside = torch.ones(len(nodes), len(before), dtype=torch.bool)
        seen = _runs([*before, *range(own.start, own.stop)])
        blocks.append(Block(own, seen, torch.cat([outside, inside], dim=1)))
    return LaidOut(
        tokens=torch.tensor([trie.tokens[node] for node in order]),
        depth=torch.tensor([trie.depth[node] for node in order]),
        paths=tuple(tuple(place[node] for node in path) for path in trie.paths),
        blocks=tuple(blocks),
    )


def _cut(trie: Trie, limit: int) -> list[tuple[int, list[int]]]:
    """Points of the trie, each with the nodes below it that form a block, parents first."""
    children: dict[int, list[int]] = {node: [] for node in range(-1, len(trie.tokens))}
    for node, parent in enumerate(trie.parents):
        children[parent].append(node)
    sizes = [1] * len(trie.tokens)
    for node in reversed(range(len(trie.tokens))):
        if trie.parents[node] >= 0:
            sizes[trie.parents[node]] += sizes[node]

    found: list[tuple[int, list[int]]] = []
    points = [-1]
    while points:
        point = points.pop()
        block: list[int] = []
        for child in children[point]:
            if sizes[child] <= limit:
                part = _subtree(children, child)
            else:
                part = _unbranched(children, child, limit)
                points.append(part[-1])
            if len(block) + len(part) > limit:
                found.append((point, block))
                block = []
            block = block + part
        if block:
            found.append((point, block))
    return found


def _subtree(children: dict[int, list[int]], node: int) -> list[int]:
    """`node` and all below it, parents first."""
    nodes = [node]
    for at in nodes:  # grows while it is gone through
        nodes.extend(children[at])
    return nodes


def _unbranched(children: dict[int, list[int]], node: int, limit: int) -> list[int]:
    """`node` and what follows it up to the next branching, at most `limit` nodes."""
    nodes = [node]
    while len(nodes) < limit and len(children[nodes[-1]]) == 1:
        nodes.append(children[nodes[-1]][0])
    return nodes


def _ancestors(trie: Trie, node: int) -> list[int]:
    """`node` and all above it, from the top; nothing for -1."""
    path = []
    while node >= 0:
        path.append(node)
        node = trie.parents[node]
    return path[::-1]


def _runs(places: Sequence[int]) -> tuple[slice, ...]:
    """Ascending numbers as slices of neighbours."""
    runs: list[slice] = []
    for place in places:
        if runs and runs[-1].stop == place:
            runs[-1] = slice(runs[-1].start, place + 1)
        else:
            runs.append(slice(place, place + 1))
    return tuple(runs)
