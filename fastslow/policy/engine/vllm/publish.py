"""Versions of the adapter as folders: written next to where they go, then renamed, never changed.

A version is named by the fingerprint of its weights and by the start of the run that wrote it. So a
name stands for one set of bits for ever: a server that caches what it computed under a name can
never mix it with other weights (vllm-project/vllm issue 42125), and a resumed run, whose server may
have been started again or not, uses no name of the one before.
"""

import contextlib
import shutil
from pathlib import Path
from typing import Any

from fastslow.core.errors import EngineError
from fastslow.core.files import unfinished
from fastslow.policy.adapter.lora import save_adapter


class Versions:
    """The folder that servers read versions of an adapter from.

    Several processes of a run may share it: whichever needs a version first writes it, and the
    same weights give the same folder.

    Args:
        folder: Where they lie; servers see it under the same path.
        run: Name of the run.
        start: What tells this start of the run from every other.
    """

    def __init__(self, folder: Path, run: str, start: str) -> None:
        self.folder = folder.absolute() / run / start

    def name(self, weights: str) -> str:
        """What servers know a version by."""
        return f"{self.folder.parent.name}-{self.folder.name}-{weights}"

    def write(self, model: Any, weights: str) -> Path:
        """The folder of the adapter's present version, whose fingerprint is `weights`.

        Raises:
            EngineError: The disk refused.
            CheckpointError: What lies there is not the adapter.
        """
        path = self.folder / weights
        if path.is_dir():
            return path
        staging = unfinished(self.folder)
        try:
            staging.mkdir(parents=True)
            save_adapter(model, staging)
            with contextlib.suppress(FileExistsError):  # another process was first
                _rename(staging, path)
        except OSError as err:
            raise EngineError(
                f"engine: {path}: a version of the adapter cannot be written, got "
                f"{err.strerror or err}. Check free space and permissions, or engine.adapters_dir."
            ) from err
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return path

    def remove(self, weights: str) -> None:
        """Remove a version that no server has any more."""
        shutil.rmtree(self.folder / weights, ignore_errors=True)

    def clear(self) -> None:
        """Remove every version of the run, those of a start that was cut off too."""
        shutil.rmtree(self.folder.parent, ignore_errors=True)
        with contextlib.suppress(OSError):  # other runs have theirs next to it
            self.folder.parent.parent.rmdir()


def _rename(staging: Path, path: Path) -> None:
    """Rename a folder, unless `path` is there: then FileExistsError, whatever the system says."""
    try:
        staging.rename(path)
    except OSError as err:
        if path.is_dir():
            raise FileExistsError(str(path)) from err
        raise
