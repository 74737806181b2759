"""The environment of a run: versions, machine, commit. Written once, read by people.

Never reads environment variables, so no key or token can reach a record.
"""

import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path

from fastslow.core.types import Json

PACKAGES = (
    "accelerate",
    "datasets",
    "dspy",
    "fastslow",
    "gepa",
    "mlflow",
    "numpy",
    "peft",
    "pydantic",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
)
"""Distributions whose version can change a figure."""


def describe_environment(device: str) -> dict[str, Json]:
    """Facts about this machine and installation as plain data; None for what cannot be found out.

    `device` is where the model runs, e.g. `cpu` or `cuda:0`.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "python": platform.python_version(),
        "platform": " ".join(filter(None, [platform.system(), *platform.libc_ver()])),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "cpus_usable": len(affinity(0)) if affinity else os.cpu_count(),
        "device": device,
        "card": _card(device),
        "packages": {package: _version(package) for package in PACKAGES},
        "git": _git_commit(Path.cwd()),
    }


@cache
def _version(package: str) -> str | None:
    """Of the package that is installed; looked up once, since that reads all that it says."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _card(device: str) -> Json:
    """Name and memory of the card that the model runs on; None on the CPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    card = torch.cuda.get_device_properties(device)
    return {"name": card.name, "gb": round(card.total_memory / 1e9, 1), "cuda": torch.version.cuda}


def _git_commit(folder: Path) -> Json:
    """Commit of the checkout around `folder` and whether files differ from it; None outside one."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        dirty = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": dirty}


def why_not_to_write(folder: Path) -> str | None:
    """Why nothing should be written to a folder that is only looked at; None where it may be.

    It refuses, or its files are kept under version control.
    """
    try:
        is_open = os.access(folder, os.W_OK)
    except ValueError:  # a zero byte, half of a character
        is_open = False
    if not is_open:
        return "it cannot be written"
    place = folder.resolve()
    # a repository within the folder is as foreign as the folder
    around = next((parent for parent in place.parents if (parent / ".git").exists()), None)
    if around is None:
        return None
    try:
        is_kept = bool(_git(around, "ls-files", "--", str(place)))
    except (OSError, subprocess.SubprocessError):
        return None
    return "it is kept under version control" if is_kept else None


def _git(folder: Path, *arguments: str) -> str:
    completed = subprocess.run(
        # a repository that somebody else made must not have its monitor started
        ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return completed.stdout.strip()
