"""The progress of a long run: where it is, how well it does, how long it will take."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

PLAIN_INTERVAL_S = 15.0
"""Without a terminal, one line at most this often, and one at every change of phase."""


class Progress:
    """Prints progress of `total` units: one live line on a terminal, plain lines elsewhere."""

    def __init__(self, total: float, console: Console) -> None:
        self.total = total
        self.console = console
        self._started = time.monotonic()
        self._done = 0.0
        self._phase = ""
        self._last_print = float("-inf")
        self._status: Any = None
        self.listener: Callable[[str, str, float, float | None], None] | None = None
        """Told at every `show`: phase, step, elapsed seconds, and those that remain, if known."""

    def __enter__(self) -> "Progress":
        """Start the live line, if there is a terminal."""
        if self.console.is_terminal:
            self._status = self.console.status("starting")
            self._status.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Take the live line away."""
        if self._status is not None:
            self._status.stop()

    def show(self, phase: str, step: str, units: float, figures: Mapping[str, float]) -> None:
        """Show the current work: a phase, the step in it (may be empty), units done of it."""
        words = "".join(f"  {name} {value:.2f}" for name, value in figures.items())
        line = f"{phase} {step}{words}  {self._clock(units)}"
        if self.listener is not None:
            elapsed = time.monotonic() - self._started
            self.listener(phase, step, elapsed, self.remaining_s(units))
        now = time.monotonic()
        if self._status is not None:
            self._status.update(Text(line))
        elif phase != self._phase or now - self._last_print >= PLAIN_INTERVAL_S:
            self.console.print(line, markup=False, soft_wrap=True)
            self._last_print = now
        self._phase = phase

    def finish(self, units: float) -> None:
        """Count a whole phase as done."""
        self._done += units

    def remaining_s(self, units: float) -> float | None:
        """Seconds that remain after what is done and these units; None before there is a pace."""
        units += self._done
        if units <= 0:
            return None
        elapsed = time.monotonic() - self._started
        return elapsed / units * max(0.0, self.total - units)

    def _clock(self, units: float) -> str:
        elapsed, remaining = time.monotonic() - self._started, self.remaining_s(units)
        if remaining is None:
            return f"[{minutes(elapsed)}]"
        return f"[{minutes(elapsed)} elapsed, about {minutes(remaining)} remaining]"


def minutes(seconds: float) -> str:
    """Seconds as `m:ss`."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
