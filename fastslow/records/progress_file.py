"""Where a run is at this moment: progress.json, what its progress line says, for those who watch.

It is replaced about once a second while the run works, and decides nothing.
"""

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
    """The content of progress.json."""

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


def progress_writer(
    run: Path, seconds: float, require: Callable[[], None]
) -> Callable[[str, str, float, float | None], None]:
    """A function that keeps phase, step, elapsed and remaining seconds of this part of a run.

    Earlier parts took `seconds`; `require` raises where the folder may not be written any more.
    A disk that refuses stops nothing.
    """
    last = -INTERVAL_S

    def write(phase: str, step: str, elapsed_s: float, remaining_s: float | None) -> None:
        nonlocal last
        if (now := time.monotonic()) - last < INTERVAL_S:
            return
        last = now
        note = ProgressNote(phase, step, seconds + elapsed_s, remaining_s, time.time())
        require()
        with contextlib.suppress(OSError):
            write_file(run, PROGRESS_FILE, json.dumps(asdict(note)) + "\n")

    return write


def read_progress(run: Path) -> ProgressNote | None:
    """Where a run is, or was when it ended; None where its folder does not say."""
    try:
        return shaped(ProgressNote, read_json(run / PROGRESS_FILE))
    except (OSError, ValueError):
        return None
