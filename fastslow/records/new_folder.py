"""Names of run folders and of files in them, and the making of a folder: all of it or nothing."""

import os
import re
from collections.abc import Callable
from datetime import datetime
from itertools import count
from pathlib import Path

from fastslow.config.loading.load import config_hash
from fastslow.config.models import RunConfig
from fastslow.core.files import remove, sync, unfinished


def new_folder(config: RunConfig, write: Callable[[Path, str], None]) -> Path:
    """Make `MMDD-HHMM-<name>-<hash>` in `config.runs_dir`, with a number where it is taken.

    `write` is given a folder and its name to be, and puts in everything that makes it a run's: the
    name appears with all of it.

    Raises:
        OSError: It cannot be made or written.
    """
    stamp = datetime.now().astimezone().strftime("%m%d-%H%M")
    name = f"{stamp}-{config.name}-{config_hash(config)[:8]}"
    root = Path(config.runs_dir)
    root.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = root / (name if number == 1 else f"{name}-{number}")
        if os.path.lexists(path):
            continue
        staging = unfinished(root)
        try:
            staging.mkdir()
            write(staging, path.name)
            staging.rename(path)
            sync(root)
            break
        except OSError:
            if not os.path.lexists(path):  # else another run was faster
                raise
        finally:
            remove(staging)
    return path


def stage_path(stage: int, task: str) -> str:
    """Where a run folder keeps the adapter and the prompts of a stage, counted from 0."""
    return f"stages/{stage:03d}-{task}"


def file_name(text: str) -> str:
    """Text from a configuration as a harmless file name."""
    return re.sub(r"[^A-Za-z0-9_.-]|^\.+", "_", text)[:100] or "_"
