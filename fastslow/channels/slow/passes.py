"""How many rows go forward and back together: as many as share tokens and fit in the memory."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

from fastslow.core.distributed import num_processes
from fastslow.core.errors import ChannelError
from fastslow.core.types import TokenIds
from fastslow.policy.engine.memory import free_memory, out_of_memory
from fastslow.policy.engine.prefixes import common_length

T = TypeVar("T")


class PassSize:
    """Rows of one forward and backward pass; fewer when the memory does not take them.

    Gradients add up over passes, so the update stays the same.
    """

    def __init__(self, rows: int, tokens: int) -> None:
        self.rows = rows
        """At most."""
        self.tokens = tokens
        """Distinct tokens of a pass at most, where it has more than a row: memory grows with them,
        since what every layer computed of each is kept for the way back."""
        self._notes: list[str] = []

    def over(self, rows: Sequence[TokenIds]) -> int:
        """Rows of each pass over these, sorted so that rows that begin alike are neighbours."""
        shared = [common_length(*pair) for pair in pairwise(rows)]
        fresh = [len(row) - length for row, length in zip(rows, [0, *shared], strict=True)]

        def fits(size: int) -> bool:
            """Whether no pass of this size has too many tokens; its first row is read in full."""
            starts = range(0, len(rows), size)
            counts = (len(rows[start]) + sum(fresh[start + 1 : start + size]) for start in starts)
            return max(counts) <= self.tokens

        sizes = (math.ceil(len(rows) / passes) for passes in range(1, len(rows)))
        return min(self.rows, next(filter(fits, sizes), 1))

    def fit(
        self,
        passes: Callable[[int], T],
        undo: Callable[[], None],
        rows: Sequence[TokenIds] | None = None,
    ) -> T:
        """What `passes` gives for the most rows at a time that the memory takes.

        `undo` takes back what `passes` did before it failed. With a way back, `rows` are what the
        passes go over, in order; see `over`.

        Raises:
            ChannelError: Not even one row fits; or there are several processes, which all have to
                make the same number of passes.
        """
        size = self.rows if rows is None else self.over(rows)
        while True:
            try:
                return passes(size)
            except (RuntimeError, MemoryError) as error:
                words = out_of_memory(error)
                if words is None:
                    raise
            if size == 1 or num_processes() > 1:
                raise ChannelError(
                    f"slow: out of memory with {size} rows in one pass: {words} Lower "
                    "slow.tokens_per_forward or the tasks' lengths, or use another device."
                )
            undo()
            free_memory()
            before, size = size, size // 2
            self.rows = size
            self._notes.append(
                f"out of memory with {before} rows in one pass; at most {size} from here on. "
                "The gradient is the same."
            )

    def take_notes(self) -> list[str]:
        """The notes since this was asked last."""
        notes, self._notes = self._notes, []
        return notes
