"""Time limits on what a thread waits for: one thread watches all of them.

A timer for each wait would be a thread for each, which on a busy machine is waited for longer than
the grade of an answer takes. Time in which this process stood still, as after Ctrl-Z or on a
machine that was paused, does not count: what was waited for may be there since.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

LOOK_S = 1.0
"""Between two looks while there is a limit; of a longer time twice of it counts."""


@dataclass(eq=False)
class Limit:
    """A limit that is being watched."""

    left_s: float
    stop: Callable[[], None]
    looked: float
    """When it was looked at last, on the monotonic clock."""
    is_over: bool = False
    """Whether `stop` was called."""


class Watch:
    """Calls `stop` of every limit that is over; its thread is started with the first limit."""

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        """Forget every limit: in a process that was just forked, which has no such thread."""
        self._limits: set[Limit] = set()
        self._changed = threading.Condition()
        self._wakes = float("inf")
        """When the thread looks next; infinite while it waits to be told."""
        self._thread: threading.Thread | None = None

    @contextmanager
    def limited(self, seconds: float, stop: Callable[[], None]) -> Iterator[Limit]:
        """Within it there are so many seconds, after which another thread calls `stop`."""
        limit = Limit(seconds, stop, time.monotonic())
        next_look = limit.looked + min(seconds, LOOK_S)
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="time limits", daemon=True)
                self._thread.start()
            self._limits.add(limit)
            if next_look < self._wakes:
                self._wakes = next_look
                self._changed.notify()
        try:
            yield limit
        finally:
            with self._changed:
                self._limits.discard(limit)

    def _run(self) -> None:
        with self._changed:
            while True:
                now = time.monotonic()
                for limit in list(self._limits):
                    limit.left_s -= min(now - limit.looked, 2 * LOOK_S)
                    limit.looked = now
                    if limit.left_s <= 0:
                        self._limits.discard(limit)
                        limit.is_over = True
                        limit.stop()
                wait_s = min((min(limit.left_s, LOOK_S) for limit in self._limits), default=None)
                self._wakes = float("inf") if wait_s is None else now + wait_s
                self._changed.wait(wait_s)
