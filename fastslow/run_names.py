"""Names in and of run folders: made once, harmless, and leading nowhere else."""

import os
import re
from datetime import datetime
from pathlib import Path

from fastslow.config.load import config_hash
from fastslow.config.models import RunConfig
from fastslow.errors import CheckpointError
from fastslow.text import shorten


def new_folder(config: RunConfig) -> Path:
    """Make `MMDD-HHMM-<name>-<hash>` in `config.runs_dir`, with a number where it is taken.

    Raises:
        OSError: It cannot be made.
    """
    stamp = datetime.now().astimezone().strftime("%m%d-%H%M")
    name = f"{stamp}-{config.name}-{config_hash(config)[:8]}"
    root = Path(config.runs_dir)
    root.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


def require_no_links(path: Path) -> None:
    """Make sure that nothing under a run folder leads out of it.

    Raises:
        CheckpointError: There is a link; names it.
    """
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            found = Path(folder) / name
            if found.is_symlink():
                raise CheckpointError(
                    f"{found}: a link, got one to {shorten(str(found.readlink()), 100)!r}. Runs "
                    "write to their own folder alone; put the file itself there."
                )


def file_name(text: str) -> str:
    """Text from a configuration as a harmless file name."""
    return re.sub(r"[^A-Za-z0-9_.-]|^\.+", "_", text)[:100] or "_"
