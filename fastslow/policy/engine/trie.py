"""The trie of a batch's rows, and its order as one sequence for one forward pass.

Rows of a fast-slow batch repeat a few long texts and questions. Their trie holds every distinct
beginning once. `pack` puts its nodes in an order in which attention is a few dense pieces
(`block_attention.py` computes them); linear layers see one sequence of distinct tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fastslow.core.types import TokenIds
from fastslow.policy.engine.sizes import CPU


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

    queries: slice
    """The nodes that attend."""
    keys: tuple[slice, ...]
    """The nodes they may attend to, in pieces: common ancestors first, `queries` last."""
    mask: Bool[Tensor, "queries keys"]
    """True where the row's node may attend to the column's: itself and its ancestors."""


@dataclass(frozen=True)
class PackedTrie:
    """A trie as one sequence."""

    tokens: Int[Tensor, " nodes"]
    """Token id of each node; a parent comes before its children."""
    depth: Int[Tensor, " nodes"]
    """Position of each node in its row, from 0."""
    paths: tuple[tuple[int, ...], ...]
    """For each row, the place of each of its tokens in the sequence."""
    blocks: tuple[Block, ...]
    """Every node is a query of exactly one block, in order."""


def merge(rows: Sequence[TokenIds]) -> Trie:
    """Merge equal beginnings of `rows`, none empty; equal rows share all their nodes."""
    tokens: list[int] = []
    depth: list[int] = []
    parents: list[int] = []
    children: dict[tuple[int, int], int] = {}  # (node, next token) -> node
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
    """True where the column's node is the row's or an ancestor of it; parents as in `Trie`."""
    sizes = _subtree_sizes(parents)
    # Places in depth-first order, where a subtree is one run of places: a parent's children follow
    # it one after the other, those without a parent the one before them.
    free, root, places = [0] * len(parents), 0, [0] * len(parents)
    for node, parent in enumerate(parents):
        if parent >= 0:
            places[node] = free[parent]
            free[parent] += sizes[node]
        else:
            places[node] = root
            root += sizes[node]
        free[node] = places[node] + 1
    first = torch.tensor(places)
    last = first + torch.tensor(sizes)
    # [rows, columns]: the row's place lies in the column's run
    return (first[:, None] >= first) & (first[:, None] < last)


def pack(trie: Trie, limit: int = CPU.block_tokens) -> PackedTrie:
    """Order the nodes of `trie` in blocks of at most `limit` nodes.

    All nodes of a block hang below one point of the trie, whose ancestors they all attend to. Below
    a point, subtrees that fit in a block stay whole and share blocks; of one that does not, the
    unbranched beginning comes first and its end becomes the point of further blocks.
    """
    order: list[int] = []  # place in the sequence -> node
    place: dict[int, int] = {}  # and back
    blocks: list[Block] = []
    for point, nodes in _cut(trie, limit):
        start = len(order)
        place |= {node: start + offset for offset, node in enumerate(nodes)}
        order += nodes

        # left part of the mask [queries, ancestors]: the point and all above it, open to every node
        ancestors = [place[node] for node in _ancestors(trie, point)]
        outside = torch.ones(len(nodes), len(ancestors), dtype=torch.bool)
        # right part [queries, queries]: parents outside the block become negative, no ancestor
        inside = ancestor_mask([place.get(trie.parents[node], -1) - start for node in nodes])

        # ancestors lie in earlier blocks, some next to each other: a few slices name all keys
        queries = slice(start, len(order))
        keys = _runs([*ancestors, *range(queries.start, queries.stop)])
        blocks.append(Block(queries, keys, torch.cat([outside, inside], dim=1)))
    return PackedTrie(
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
    sizes = _subtree_sizes(trie.parents)

    cuts: list[tuple[int, list[int]]] = []
    points = [-1]
    while points:
        point = points.pop()
        block: list[int] = []
        for child in children[point]:
            # a small subtree goes in whole, a large one with its stem alone, to be cut again below
            if sizes[child] <= limit:
                piece = _subtree(children, child)
            else:
                piece = _unbranched(children, child, limit)
                points.append(piece[-1])
            if len(block) + len(piece) > limit:
                cuts.append((point, block))
                block = []
            block = block + piece
        if block:
            cuts.append((point, block))
    return cuts


def _subtree_sizes(parents: Sequence[int]) -> list[int]:
    """Nodes of each subtree, its root included; children have larger numbers than their parents."""
    sizes = [1] * len(parents)
    for node in reversed(range(len(parents))):
        if parents[node] >= 0:
            sizes[parents[node]] += sizes[node]
    return sizes


def _subtree(children: dict[int, list[int]], node: int) -> list[int]:
    """`node` and all below it, parents first."""
    nodes = [node]
    for parent in nodes:  # the list grows during the loop
        nodes.extend(children[parent])
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
