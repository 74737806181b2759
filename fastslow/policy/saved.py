"""The files of a saved policy, read as plain data: names, prompts, fingerprints. Without torch."""

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastslow.core.decode import shaped
from fastslow.core.errors import CheckpointError
from fastslow.core.files import damage_errors, plain_name, read_json, read_regular
from fastslow.core.prompts import PromptProgram

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PARTS_FILE = "adapter_parts.json"
"""Says how many ranks are frozen. Not in the metadata of the weights: with more than one entry
there, equal adapters would not give equal bytes."""
TEXTS_FILE = "texts.json"
STATE_FILE = "stage_adapters.json"
START_FILE = "stage_start.safetensors"
KEPT_FOLDER = "adapters"
ROUTER_FILE = "router.safetensors"
"""Mean question states by task, where the run has a router that needs them."""
_NEUTRAL = frozenset(
    {"base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "init_lora_weights"}
    | {"lora_alpha", "lora_dropout", "megatron_core", "peft_type", "peft_version"}
    | {"qalora_group_size", "r", "revision", "target_modules", "task_type"}
)
"""Settings of PEFT that may stand in a file of ours; all others are off there."""
BASE = "base"
"""Fingerprint of the weights without an adapter."""


@dataclass(frozen=True, slots=True)
class KeptPolicy:
    """The contents of a folder that `Policy.save` wrote."""

    folder: Path
    live: Mapping[str, PromptProgram]
    """Task name to the prompt it is deployed with; its seed prompt where it has none."""
    aside: tuple[str, ...]
    """Tasks that keep an adapter of their own."""
    has_adapter: bool

    def adapter_of(self, task: str) -> Path | None:
        """Folder of the adapter that `task` is deployed with; None where it is the bare base."""
        if task in self.aside:
            return self.folder / KEPT_FOLDER / task
        return self.folder if self.has_adapter else None

    def require_settings(self, task: str, scaling: float) -> None:
        """Make sure that the task's adapter is plain LoRA with this `alpha / rank`.

        Settings change what the same tensors compute, and a fingerprint is of tensors alone.

        Raises:
            CheckpointError: Its settings are missing, damaged, or say anything else.
        """
        adapter = self.adapter_of(task)
        if adapter is not None:
            _require_plain(adapter / CONFIG_FILE, scaling)

    def weights_of(self, task: str) -> str:
        """Fingerprint of that adapter's weights, as in the records.

        Raises:
            CheckpointError: The adapter's file is missing or damaged.
        """
        adapter = self.adapter_of(task)
        return BASE if adapter is None else fingerprint_of_file(adapter / WEIGHTS_FILE)


def read_kept(folder: Path) -> KeptPolicy:
    """Read which prompts and adapters a folder holds.

    Raises:
        CheckpointError: It is not a folder of a saved policy, or is damaged.
    """
    if not folder.is_dir():
        siblings = ", ".join(sorted(path.name for path in folder.parent.glob("*/")))
        raise CheckpointError(
            f"{folder}: there is no such folder; the stage has not ended, or it was removed. "
            f"Known: {siblings or 'none'}."
        )
    texts = folder / TEXTS_FILE
    try:
        live = {
            str(task): shaped(PromptProgram, program)
            for task, program in read_json(texts)["live"].items()
        }
        state: dict[str, Any] = {"aside": ()}
        if (folder / STATE_FILE).is_file():
            state = read_json(folder / STATE_FILE)
        aside = tuple(map(plain_name, state["aside"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as err:
        raise CheckpointError(
            f"{folder}: no saved adapter and prompts, got {type(err).__name__}: {err}. Expected a "
            "folder stages/NNN-TASK of a run, as a finished stage leaves it."
        ) from err
    return KeptPolicy(folder, live, aside, (folder / WEIGHTS_FILE).is_file())


def _require_plain(path: Path, scaling: float) -> None:
    failure = "not the settings that the adapter was scored with"
    with damage_errors(path, failure, "The file was changed: restore it from a copy."):
        settings = read_json(path)
        extra = {key: value for key, value in settings.items() if key not in _NEUTRAL and value}
        ratio = float(settings["lora_alpha"]) / float(settings["r"])
        if settings["peft_type"] != "LORA" or settings["bias"] != "none":
            raise ValueError("not LoRA without biases")
        if extra:
            raise ValueError(f"{next(iter(extra))} is set, which no run sets")
        if not math.isclose(ratio, scaling, rel_tol=1e-6):
            raise ValueError(f"lora_alpha / r is {ratio:g}, expected {scaling:g} of the run")


def fingerprint(tensors: Iterable[tuple[str, bytes]]) -> str:
    """Twelve hex digits over an adapter's tensors, given as names and bytes in order of names."""
    digest = hashlib.blake2b(digest_size=6)
    for name, data in tensors:
        digest.update(name.encode())
        digest.update(data)
    return digest.hexdigest()


def fingerprint_of_file(path: Path) -> str:
    """`fingerprint` of the tensors in a safetensors file.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    from safetensors import SafetensorError, deserialize

    try:
        listed = deserialize(read_regular(path))  # type: ignore[no-untyped-call]  # theirs
    except (OSError, SafetensorError) as err:
        raise CheckpointError(
            f"{path}: the adapter cannot be read, got {type(err).__name__}: {err}. The file is "
            "missing or damaged: use another stage, or a copy."
        ) from err
    tensors = dict(listed)
    return fingerprint((name, tensors[name]["data"]) for name in sorted(tensors))
