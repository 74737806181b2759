"""A study of signals, and signals.json: which of them earned to be acted on, on which model."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from fastslow.core.decode import shaped
from fastslow.core.files import damage_errors, disk_errors, is_folder, read_json, write_file
from fastslow.core.types import Json
from fastslow.measure.scores.routing_curve import RoutingCurve
from fastslow.measure.scores.signal_draws import ProblemRow
from fastslow.measure.scores.validity import Validity

VALIDITY_FILE = "signals.json"
FOLDER = "signals"
"""Where `fastslow signals RUN` puts the file, in the run folder."""
SCHEMA_VERSION = 1
_VERSION_KEY = "schema_version"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a signal tells wrong answers from right ones better than what is free."""

    signal: str
    """Its name, as in `SIGNALS` or in the decorator of a user's own."""
    earned: bool
    """Whether it may be acted on."""
    reason: str
    """The figures that decide it, in one sentence; may quote untrusted names."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The verdicts of one validity report."""

    model: str
    """The base model, as the configuration names it."""
    verdicts: Mapping[str, Verdict]
    """By the signal's name."""


@dataclass(frozen=True, slots=True)
class SignalStudy:
    """What `fastslow signals` reads of a model, and what follows."""

    model: str
    """The base model, as the configuration or the command names it."""
    subject: str
    """The policy, in a few words."""
    primary: str
    """The signal that was named before looking."""
    weights: Mapping[str, str]
    """Task to the fingerprint of the weights that read it."""
    prompts: Mapping[str, str]
    """Task to the hash of the prompt it was read under."""
    labels: Mapping[str, str]
    """Task to what its difficulty is."""
    rows: tuple[ProblemRow, ...]
    overall: Validity
    tasks: Mapping[str, Validity]
    curves: tuple[RoutingCurve, ...]
    absent: tuple[str, ...]
    """Controls and pairs of arms that there are no figures for, and why, a clause each."""


def write_verdicts(
    folder: Path, verdicts: Verdicts, details: Mapping[str, Json] | None = None
) -> Path:
    """Write signals.json into a folder, made if need be; `details` stand next to the verdicts.

    Raises:
        CheckpointError: The disk refused.
    """
    content = {_VERSION_KEY: SCHEMA_VERSION, **asdict(verdicts), **(details or {})}
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
    with disk_errors(folder / VALIDITY_FILE, "cannot be written", "run the command again"):
        return write_file(folder, VALIDITY_FILE, text)


def read_verdicts(path: Path) -> Verdicts:
    """The verdicts in a signals.json: the file, a folder that has it, or a run that was judged.

    Raises:
        CheckpointError: There is none, or it is not such a file; names it and what is wrong.
    """
    file = _file_in(path)
    then = "Give the folder of a run, or of a report, that `fastslow signals` wrote."
    with damage_errors(file, "not a validity report", then):
        content = read_json(file)
        if not isinstance(content, dict):
            raise ValueError(f"expected an object, got {type(content).__name__}")
        if (version := content.get(_VERSION_KEY)) != SCHEMA_VERSION:
            raise ValueError(f"{_VERSION_KEY}: expected {SCHEMA_VERSION}, got {version!r:.60}")
        verdicts = shaped(Verdicts, {k: content[k] for k in ("model", "verdicts") if k in content})
        for name, verdict in verdicts.verdicts.items():
            if verdict.signal != name:
                raise ValueError(f"verdicts.{name[:60]}: is of {verdict.signal[:60]!r}")
    return verdicts


def _file_in(path: Path) -> Path:
    """The file that `path` means: itself, or the one in a folder or in its signals/."""
    if not is_folder(path):
        return path
    inner = path / FOLDER / VALIDITY_FILE
    return inner if is_folder(path / FOLDER) else path / VALIDITY_FILE
