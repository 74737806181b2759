"""Where a run is at this moment: progress.json, its progress line for those who watch."""

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from fastslow.core.decode import shaped
from fastslow.core.files import read_json, write_file

PROGRESS_FILE = "progress.json"
INTERVAL_S = 1.0
"""Between two writings at least."""


@dataclass(frozen=True, slots=True)
class ProgressNote:
    """The content of progress.json; it decides nothing."""

    phase: str
    """Stage, cycle and channel, or the part of the evaluation."""
    step: str
    """How far the phase is, e.g. `3/5`; may be empty."""
    elapsed_s: float
    """Wall time of the run until then, over all resumes."""
    remaining_s: float | None
    """What is expected to remain from then on; None where nothing is known yet."""
    time: float
    """When it was written, in seconds since 1970."""


class ProgressWriter:
    """Keeps progress.json of a run whose earlier parts took some seconds.

    `require` raises where the folder may not be written any more.
    """

    def __init__(self, run: Path, seconds: float, require: Callable[[], None]) -> None:
        self._run, self._seconds, self._require = run, seconds, require
        self._last = -INTERVAL_S

    def __call__(self, phase: str, step: str, elapsed_s: float, remaining_s: float | None) -> None:
        """Write where the run is, about once a second; a disk that refuses stops nothing."""
        if (now := time.monotonic()) - self._last < INTERVAL_S:
            return
        self._last = now
        note = ProgressNote(phase, step, self._seconds + elapsed_s, remaining_s, time.time())
        self._require()
        with contextlib.suppress(OSError):
            write_file(self._run, PROGRESS_FILE, json.dumps(asdict(note)) + "\n")


def read_progress(run: Path) -> ProgressNote | None:
    """Where a run is, or was when it ended; None where its folder does not say."""
    try:
        return shaped(ProgressNote, read_json(run / PROGRESS_FILE))
    except (OSError, ValueError):
        return None
