"""Writes the files of an export, which docs/deploy.md describes; `export.py` says in what order."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastslow.core.errors import CheckpointError, ModelError
from fastslow.core.files import read_json
from fastslow.core.text import shorten
from fastslow.core.types import Json
from fastslow.policy.merged import save_merged
from fastslow.policy.model_store import ResolvedModel, hub_unreachable, sha256_of
from fastslow.policy.policy import load_policy
from fastslow.policy.render import Renderer, chat_messages
from fastslow.policy.saved import CONFIG_FILE, ROUTER_FILE, WEIGHTS_FILE
from fastslow.results.deploy.export_data import Export
from fastslow.results.deploy.snippets import served_name

INDEX_FILE = "export.json"
SCHEMA_VERSION = 1
"""Raised when a key of export.json or prompts/*.json changes its meaning or goes."""


def write_adapters(export: Export, folder: Path) -> None:
    """Copy the adapters as PEFT reads them, and nothing that only a run needs."""
    for place, source in export.adapters.items():
        target = folder / place
        target.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / WEIGHTS_FILE, target / WEIGHTS_FILE)
        config = _adapter_config(source)
        config["base_model_name_or_path"] = export.base.path_or_id
        config["revision"] = export.base.revision
        if isinstance(config["target_modules"], list):  # PEFT writes a set, in any order
            config["target_modules"] = sorted(config["target_modules"])
        if float(config["lora_alpha"]).is_integer():
            config["lora_alpha"] = int(config["lora_alpha"])
        _write_json(target / CONFIG_FILE, config)


def write_router(export: Export, folder: Path) -> None:
    """Write the mean question state of each task, where the run routes by them.

    Raises:
        CheckpointError: The stage's file is missing or damaged, or lacks a task.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    if export.router is None:
        return
    source = export.standing.folder / ROUTER_FILE
    try:
        means = load_file(source)
        save_file({task.name: means[task.name] for task in export.tasks}, folder / ROUTER_FILE)
    except (OSError, SafetensorError, KeyError) as err:
        raise CheckpointError(
            f"{source}: the means that questions are routed by cannot be read, got "
            f"{type(err).__name__}: {err}. Restore the file from a copy, or export another stage."
        ) from err


def lora_rank(export: Export) -> int | None:
    """The highest rank of the export's adapters; None without any."""
    ranks = (int(_adapter_config(source)["r"]) for source in export.adapters.values())
    return max(ranks, default=None)


def write_tokenizer(export: Export, folder: Path) -> tuple[Renderer, Any]:
    """Write the tokenizer with the run's chat template, and a generation config; returns both.

    The generation config decodes greedily, as scores were drawn, and ends a completion at every
    token that ended one in the run. It has nothing else of the base's: a repetition penalty there
    was not in force in the run.
    """
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    tokenizer = _loaded(AutoTokenizer, export.base)
    renderer = Renderer(tokenizer, export.template_arguments, export.day)
    try:
        base = GenerationConfig.from_pretrained(
            export.base.path_or_id, revision=export.base.revision
        )
    except OSError:  # models without the file: transformers derives it from their config
        base = GenerationConfig.from_model_config(_loaded(AutoConfig, export.base))
    listed = base.eos_token_id
    ends = {*(listed if isinstance(listed, list) else [listed]), tokenizer.eos_token_id}
    ends = (ends | {renderer.stop_id}) - {None}
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    settings = GenerationConfig(
        do_sample=False, eos_token_id=sorted(ends), pad_token_id=tokenizer.pad_token_id
    )
    tokenizer.save_pretrained(folder)
    settings.save_pretrained(folder)
    return renderer, settings


def write_model(export: Export, folder: Path, settings: Any) -> None:
    """Write the base with the adapter folded in, as safetensors.

    Raises:
        ModelError: The base cannot be loaded, or shares the adapted output layer with its input.
    """
    policy = load_policy(export.base.path_or_id, revision=export.base.revision, dtype=export.dtype)
    adapter = next((task.adapter for task in export.tasks if task.adapter is not None), None)
    save_merged(policy, adapter, folder, settings)


def write_texts(export: Export, folder: Path, answer_prefix: str, stops: list[int]) -> None:
    """Write each task's prompt as chat messages and as a DSPy program.

    Completions begin with `answer_prefix`, which is the template's, and end at one of `stops`.

    Raises:
        CheckpointError: A saved program does not read back equal.
    """
    from fastslow.channels.fast.dspy_programs import load_program, save_deployed  # imports dspy

    (folder / "prompts").mkdir()
    for task in export.tasks:
        adapter = export.adapter_of(task)
        prompt: dict[str, Json] = {
            "schema_version": SCHEMA_VERSION,
            "task": task.name,
            "text_hash": task.program.text_hash,
            "messages": list(chat_messages(task.program, "")[:-1]),
            "max_tokens": task.task.max_tokens,
            "stop_token_ids": stops,
            "answer_prefix": answer_prefix,
            "adapter": adapter,
            "served_as": served_name(adapter),
        }
        _write_json(folder / "prompts" / f"{task.name}.json", prompt)
        program = folder / "programs" / task.name
        save_deployed(task.program, program)
        if (saved := load_program(program).program().text_hash) != task.program.text_hash:
            raise CheckpointError(
                f"{program}: the saved program of task {task.name!r} holds prompt {saved}, "
                f"expected {task.program.text_hash}. DSPy changed the prompt (it takes common "
                "indentation away), so the program would not ask as the run did."
            )


def write_index(export: Export, folder: Path) -> None:
    """Write export.json: where everything comes from, and the SHA-256 of every file."""
    standing = export.standing
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    _write_json(
        folder / INDEX_FILE,
        {
            "schema_version": SCHEMA_VERSION,
            "fastslow": version("fastslow"),
            "run": standing.run,
            "config_hash": standing.config_hash,
            "stage": standing.row,
            "stages": list(standing.stages),
            "base": "." if export.is_merged else export.base.path_or_id,
            "base_revision": export.base.revision,
            "model_name": export.model_name,
            "dtype": export.dtype,
            "merged": export.is_merged,
            "tasks": {
                task.name: {
                    "version": task.standing.version,
                    "weights": task.standing.weights,
                    "text_hash": task.program.text_hash,
                    "adapter": export.adapter_of(task),
                    "score": task.standing.now.score,
                }
                for task in export.tasks
            },
            "files": {path.relative_to(folder).as_posix(): sha256_of(path) for path in files},
        },
    )


def _adapter_config(source: Path) -> dict[str, Any]:
    config: dict[str, Any] = read_json(source / CONFIG_FILE)
    return config


def _loaded(kind: Any, base: ResolvedModel) -> Any:
    """A tokenizer or a configuration of the base, without running its code."""
    try:
        return kind.from_pretrained(
            base.path_or_id, revision=base.revision, trust_remote_code=False
        )
    except (OSError, ValueError) as err:
        if not base.local:
            raise hub_unreachable(base.path_or_id, err) from err
        raise ModelError(
            f"model.name: cannot read {base.path_or_id!r}: {shorten(str(err), 160)} Give a folder "
            "with config.json, tokenizer files and *.safetensors."
        ) from err


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=2, sort_keys=True) + "\n", encoding="utf-8")
