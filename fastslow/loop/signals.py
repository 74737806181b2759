"""Ctrl-C and SIGTERM: the first asks a run to stop, the second stops it at once.

While the loop works (`is_patient`), the first signal waits for the end of the step in hand, so that
a resume point can be saved that loses nothing. `run.py` asks at every end of a step.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from fastslow.core.distributed import from_all, is_leader

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_REQUEST_S = 1.0
"""A signal so soon after the first is taken for the same request: terminals, launchers and
schedulers send it to a whole group of processes, and some pass it on."""


class Stopped(KeyboardInterrupt):
    """A signal stopped the run."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number
        """As shells have it: 130 after Ctrl-C, 143 after SIGTERM."""


class StopRequest:
    """Whether a signal asked this run to stop."""

    def __init__(self) -> None:
        self.is_patient = False
        """Whether the first signal waits for the end of the step in hand; else it stops at once."""
        self.is_held = False
        """Whether every signal waits, the second too, so that nothing is left halfway."""
        self._number = 0
        self._asked_at = 0.0

    @contextlib.contextmanager
    def catching(self) -> Iterator[None]:
        """Within it signals are taken here, if this is the main thread; ignored ones stay so."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, self._take)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def requested(self) -> int:
        """Number of the signal that asked any process of this run to stop; 0 for none."""
        return max(from_all(self._number))

    def obey(self) -> None:
        """Stop here if a signal asked any process of this run to.

        Raises:
            Stopped: One did.
        """
        if number := self.requested():
            raise Stopped(number)

    def _take(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.is_held:
            self._number = self._number or number
            return
        if self._number and now - self._asked_at < SAME_REQUEST_S:
            return
        if self._number or not self.is_patient:
            raise Stopped(number)
        self._number, self._asked_at = number, now
        if is_leader():  # a handler may come in the middle of a print: straight to the terminal
            os.write(2, b"\nStopping after the step in hand. Once more stops at once.\n")
