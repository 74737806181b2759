"""Which rows of token ids begin alike: pure functions on tuples."""

from collections.abc import Sequence
from dataclasses import dataclass

from fastslow.types import TokenIds

MIN_TRUNK_TOKENS = 8
"""Rows that share fewer leading tokens than this are not worth a cache of their own."""


@dataclass(frozen=True)
class PrefixGroup:
    """Rows with a common beginning."""

    trunk: TokenIds
    """The shared leading tokens; shorter than every member, possibly empty."""
    members: tuple[int, ...]
    """Indices into the rows."""


def shared_prefixes(rows: Sequence[TokenIds]) -> list[PrefixGroup]:
    """Cut rows into groups by their leading tokens.

    Sorted rows stay together as long as each shares at least `MIN_TRUNK_TOKENS`, and half of the
    group's shared beginning so far, with the next.

    Returns:
        Groups that hold every index once; each trunk leaves its members at least one token, and a
        row that shares with no other has none: a pass of its own would cost more than it saves.
    """
    order = sorted(range(len(rows)), key=lambda i: rows[i])
    groups: list[PrefixGroup] = []
    members: list[int] = []
    trunk: TokenIds = ()
    for index in order:
        shared = _common(trunk, rows[index])
        if members and shared >= MIN_TRUNK_TOKENS and 2 * shared >= len(trunk):
            members.append(index)
            trunk = trunk[:shared]
            continue
        if members:
            groups.append(_group(trunk, members))
        members, trunk = [index], rows[index][:-1]
    if members:
        groups.append(_group(trunk, members))
    return groups


def _group(trunk: TokenIds, members: list[int]) -> PrefixGroup:
    return PrefixGroup(trunk if len(members) > 1 else (), tuple(members))


def _common(a: TokenIds, b: TokenIds) -> int:
    """Length of the common beginning, leaving `b` at least one token."""
    limit = min(len(a), len(b) - 1)
    return next((i for i in range(limit) if a[i] != b[i]), limit)
