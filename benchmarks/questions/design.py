"""What was decided before looking, and where the figures lie. Light: the page needs no model."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.keeping import REFERENCE
from fastslow.policy.signals import SignalName

INNER = re.compile(r"\[[^\[\]{}]*\]")
"""A list of numbers alone, which stands on one line."""
FOLDER = REFERENCE / "questions"
MODEL = "smollm2-135m-instruct"
TASKS: Mapping[str, Mapping[str, Any]] = {
    "country_continent": {},
    "word_valence": {"words": 200},
    "word_language": {"words": 80},
}
"""Their parameters: as many problems as their sources give."""
DRAWS = 3
"""Prompts that each problem is read under."""
DEMONSTRATIONS, CHEAP, STRONG = 6, 2, 12
"""Of these prompts, and of the two arms of routing."""
BASELINE: SignalName = "first_logprob"
"""The free baseline that was named before looking."""


def write(name: str, figures: Mapping[str, Any]) -> None:
    """Keep an experiment's figures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    file = FOLDER / f"{name}.json"
    text = json.dumps(figures, indent=1)
    file.write_text(INNER.sub(lambda found: " ".join(found[0].split()), text) + "\n")
    print(f"written: {file}", flush=True)


def read(name: str) -> Any:
    """The kept figures of an experiment; None where it was not made."""
    file: Path = FOLDER / f"{name}.json"
    return json.loads(file.read_text()) if file.is_file() else None
