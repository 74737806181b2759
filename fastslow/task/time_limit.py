"""Time limits on what a thread waits for: one thread watches all of them.

A timer for each wait would be a thread for each, which on a busy machine is waited for longer than
the grade of an answer takes.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(eq=False)
class Limit:
    """A limit that is being watched."""

    until: float
    """On the monotonic clock."""
    stop: Callable[[], None]
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
        limit = Limit(time.monotonic() + seconds, stop)
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="time limits", daemon=True)
                self._thread.start()
            self._limits.add(limit)
            if limit.until < self._wakes:
                self._wakes = limit.until
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
                for limit in [limit for limit in self._limits if limit.until <= now]:
                    self._limits.discard(limit)
                    limit.is_over = True
                    limit.stop()
                self._wakes = min((limit.until for limit in self._limits), default=float("inf"))
                self._changed.wait(min(self._wakes - now, threading.TIMEOUT_MAX))
