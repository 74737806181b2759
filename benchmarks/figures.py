"""Writes what a benchmark measured, with what it takes to know where it comes from."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastslow.records.environment import describe_environment


def write_figures(
    path: Path, figures: Mapping[str, Any], benchmark: str, arguments: Sequence[str] | None
) -> None:
    """Write figures as JSON, with the command and the machine they were made by.

    Args:
        path: The file, replaced.
        figures: What was measured, by name.
        benchmark: Module under `benchmarks`.
        arguments: Of the command line; None takes the process's own.
    """
    given = sys.argv[1:] if arguments is None else arguments
    made = {"command": f"python -m benchmarks.{benchmark} {shlex.join(given)}".strip()}
    text = json.dumps({**made, "environment": describe_environment(_device()), **figures}, indent=1)
    path.write_text(text + "\n", encoding="utf-8")


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
