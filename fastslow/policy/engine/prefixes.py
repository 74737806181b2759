"""Which rows of token ids begin alike: pure functions on tuples."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fastslow.core.types import TokenIds

MIN_TRUNK_TOKENS = 8
"""Rows that share fewer leading tokens than this are not worth a cache of their own."""


@dataclass(frozen=True)
class PrefixGroup:
    """Rows with a common beginning."""

    trunk: TokenIds
    """The shared leading tokens; shorter than every member, possibly empty."""
    members: tuple[int, ...]
    """Indices into the rows."""


def shared_prefixes(rows: Sequence[TokenIds], turn_ends: Collection[int] = ()) -> list[PrefixGroup]:
    """Cut rows into groups by their leading tokens.

    Sorted rows stay together as long as each shares at least `MIN_TRUNK_TOKENS`, and half of the
    group's shared beginning so far, with the next.

    `turn_ends` are tokens that end a turn of a chat. With them the trunk of a row that shares with
    no other is all its turns but the last, if those are half of it: a later row may begin with
    them. Decided by the row alone, so that earlier requests change no bit. Every index is in one
    group.
    """
    # sorted, rows with a common beginning are neighbours, and one pass finds the groups
    order = sorted(range(len(rows)), key=lambda i: rows[i])
    groups: list[PrefixGroup] = []
    members: list[int] = []
    trunk: TokenIds = ()
    for index in order:
        # the row joins while it shares enough; the trunk shrinks to what all members share
        shared = common_length(trunk, rows[index])
        if members and shared >= MIN_TRUNK_TOKENS and 2 * shared >= len(trunk):
            members.append(index)
            trunk = trunk[:shared]
            continue
        if members:
            groups.append(PrefixGroup(trunk, tuple(members)))
        members, trunk = [index], rows[index][:-1]  # one token stays to be read after the trunk
    if members:
        groups.append(PrefixGroup(trunk, tuple(members)))
    # a row alone shares with nothing in this batch: its trunk is what later rows may share
    return [
        group
        if len(group.members) > 1
        else PrefixGroup(_earlier_turns(rows[group.members[0]], turn_ends), group.members)
        for group in groups
    ]


def _earlier_turns(row: TokenIds, turn_ends: Collection[int]) -> TokenIds:
    """The row up to the end of its last turn but one; empty where that is not worth a cache."""
    ends = [place + 1 for place, token in enumerate(row[:-1]) if token in turn_ends]
    end = ends[-2] if len(ends) > 1 else 0
    return row[:end] if end >= max(MIN_TRUNK_TOKENS, len(row) / 2) else ()


def common_length(a: TokenIds, b: TokenIds) -> int:
    """Length of the common beginning of two rows, leaving `b` at least one token."""
    limit = min(len(a), len(b) - 1)
    return next((i for i in range(limit) if a[i] != b[i]), limit)
