"""Publishing: what a run folder may show, copied to an object store or the hub; never the rest.

Resume points, locks and whatever else a run keeps for itself stay. Every file is listed with its
SHA-256 in a manifest, which is written last: without it a copy is not complete. Files that are
there already are left alone, so that a push that was cut short goes on where it ended.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fastslow.config.models import RunConfig
from fastslow.core.credentials import looks_like_key, without_keys
from fastslow.core.decode import shaped
from fastslow.core.errors import CheckpointError, ConfigError, FastSlowError, PublishError
from fastslow.core.files import (
    checksums,
    damage_errors,
    parse_json,
    plain_name,
    read_json,
    read_regular,
)
from fastslow.core.text import shorten
from fastslow.policy.model_store import sha256_of
from fastslow.records.new_folder import stage_path
from fastslow.records.run_folder import require_no_links
from fastslow.records.seal import require_unbroken
from fastslow.records.stores import Store, open_store, require_package

_LOG = logging.getLogger(__name__)
MANIFEST, PARTIAL = "manifest.json", "manifest.partial.json"
"""What is at an address; what a push that was cut short has written."""
CARDS = ("config.json", "run.json", "environment.json")
SHOWN = (
    *(*CARDS, "data.json", "estimate.json", "deployed.jsonl", "validity.json", "layers"),
    *("scores.jsonl", "events.jsonl", "metrics.jsonl", "scores.csv", "figures", "report.html"),
    *("report.json", "report.md", "gate", "probe", "rollouts", "stages", "export"),
)
"""Files and folders of a run that are published; nothing else is."""
_LARGE = 8_000_000
"""Bytes of a file after which what was written so far is noted."""

Show = Callable[[str, int], None]
"""Is told the name of each file and its size in bytes, when it is there."""


@dataclass(frozen=True)
class Manifest:
    """What is at an address: of which run, and every file with its SHA-256."""

    run: str
    config_hash: str
    started: str
    files: Mapping[str, str]
    schema_version: int = 1


def push_run(
    run: Path, address: str, show: Show, *, stage: int | None = None, force: bool = False
) -> int:
    """Publish a finished run, or its stage with this number, from 1; gives the files sent.

    Raises:
        CheckpointError: It is not finished, has no such stage, was edited since it was sealed, or a
            file of it is a link.
        ConfigError: The address has another run, or a file looks as if it held a key.
        PublishError: The store refused; what was sent stays, and the next push goes on there.
    """
    card = _card(run)
    if stage is None:
        if card["state"] != "finished":
            raise CheckpointError(
                f"{run}: the run is {card['state']}, and only a finished one is published whole. "
                f"Continue it with: fastslow resume {run}; or name a complete stage with --stage."
            )
        return _push(run, _files(run, SHOWN), address, show, force)
    stages = card["stages"]
    folder = stage_path(stage - 1, stages[stage - 1]) if 1 <= stage <= len(stages) else ""
    if not folder or not (run / folder).is_dir():
        raise CheckpointError(
            f"{run}: there is no complete stage {stage}. Stages of the run: {', '.join(stages)}."
        )
    return _push(run, _files(run, (*CARDS, folder)), address, show, force)


def push_export(run: Path, folder: Path, address: str, show: Show, *, force: bool = False) -> int:
    """Publish an export of a run, as `fastslow export` made it; see `push_run`."""
    with damage_errors(folder, "not an export", f"Make one with: fastslow export {run}"):
        require_no_links(folder)
        index, sums = read_json(folder / "export.json"), checksums(folder)
        del sums["export.json"]
        is_whole = (index["files"], index["config_hash"]) == (sums, _card(run)["config_hash"])
    if not is_whole:
        raise CheckpointError(
            f"{folder}: not what fastslow export {run} made: of another run, or changed since. "
            "Export again."
        )
    names = [path.name for path in folder.iterdir()]
    return _push(run, _files(folder, names), address, show, force)


class Publisher:
    """Pushes the stages of a run as they are finished, and the run; a failure stops nothing."""

    def __init__(self, config: RunConfig, run: Path, is_on: bool = True) -> None:
        self._run = run
        self._address = published_at(config, run) if is_on and config.publish else None

    def push(self, stage: int | None = None) -> None:
        """Push a stage with this number, from 1, or the finished run."""
        if self._address is None:
            return
        try:
            push_run(self._run, self._address, lambda *_: None, stage=stage)
        except FastSlowError as error:
            _LOG.warning(
                "publish: %s The run continues. To send what is missing: fastslow push %s",
                error,
                self._run,
            )


def require_publishing(config: RunConfig) -> None:
    """Make sure that what reaches the run's `publish` is installed.

    Raises:
        ConfigError: It is not.
    """
    if config.publish is not None:
        require_package(config.publish, "publish")


def published_at(config: RunConfig, run: Path) -> str:
    """Where a run is published by its `publish`: in a folder of its own.

    Raises:
        ConfigError: It has none.
    """
    if config.publish is None:
        raise ConfigError(
            f"push: no address, and `publish` is null in this run. Give one: fastslow push {run} "
            "s3://bucket/prefix"
        )
    return f"{config.publish.rstrip('/')}/{run.name}"


def _push(run: Path, files: Mapping[str, Path], address: str, show: Show, force: bool) -> int:
    """Send what is not there, then the manifest of all that is."""
    require_unbroken(run)
    require_package(address, "push")
    card = _card(run)
    _require_no_keys(files)
    manifest = Manifest(run.name, card["config_hash"], card["started"], {})
    with _refusals(address):
        store = open_store(address)
        earlier, sizes, sent = _earlier(store, manifest, address, force), store.sizes(), 0
        sums = {name: digest for name, digest in earlier.items() if name in sizes}
        try:
            for name, path in files.items():
                size = path.stat().st_size
                if sizes.get(name) != size or sums.get(name) != sha256_of(path):
                    sums.pop(name, None)  # until it is written, nobody knows what is there
                    sums[name] = store.write(name, path)
                    sent += 1
                    if size > _LARGE:
                        _note(store, PARTIAL, replace(manifest, files=sums))
                show(name, size)
        except BaseException:
            with suppress(Exception):  # the first error says more
                _note(store, PARTIAL, replace(manifest, files=sums))
            raise
        _note(store, MANIFEST, replace(manifest, files=sums))
        store.settle(PARTIAL)
    return sent


def _earlier(store: Store, ours: Manifest, address: str, force: bool) -> dict[str, str]:
    """Files that earlier pushes of this run wrote, with their sums.

    Raises:
        ConfigError: What is there is of another run, and `force` is off.
    """
    sums: dict[str, str] = {}
    for name in (MANIFEST, PARTIAL):
        content = store.read(name)
        if content is None:
            continue
        try:
            manifest = shaped(Manifest, parse_json(content))
        except ValueError:
            manifest = Manifest("of no known form", "", "", {})
        if replace(manifest, files={}) == ours:
            sums |= manifest.files
        elif not force:
            raise ConfigError(
                f"push: {address} has another run, {shorten(manifest.run, 100)}. Give an address "
                "of its own, or write over it with --force."
            )
    return sums


def _files(root: Path, names: Iterable[str]) -> dict[str, Path]:
    """Every file under these names of a folder, by its name there; none that is being written.

    Folders that are begin with `tmp-` in runs of an earlier version.

    Raises:
        CheckpointError: There is a link.
    """
    require_no_links(root)
    files: dict[str, Path] = {}
    for top in (root / name for name in names):
        for path in (top,) if top.is_file() else sorted(top.rglob("*")):
            places = path.relative_to(root).parts
            if path.is_file() and not any(p.startswith((".", "tmp-")) for p in places):
                files["/".join(places)] = path
    return files


def _require_no_keys(files: Mapping[str, Path]) -> None:
    """Make sure that nothing that was configured looks like a key.

    Raises:
        CheckpointError: A file cannot be read.
        ConfigError: It does; names the file.
    """
    for name, path in files.items():
        is_settings = name in CARDS or name.startswith("layers/")
        with damage_errors(path, "cannot be read"):
            content = read_regular(path) if is_settings else b""
        if looks_like_key(content.decode(errors="replace")):
            raise ConfigError(
                f"{path}: holds what looks like a key or a password, so nothing was published. "
                "Replace that key, and take it out of the file."
            )


@contextmanager
def _refusals(address: str) -> Iterator[None]:
    """Say what a store refused, without keys.

    Raises:
        PublishError: It refused something.
    """
    try:
        yield
    except FastSlowError:
        raise
    except Exception as error:  # every store has errors of its own
        words = shorten(without_keys(f"{type(error).__name__}: {error}"), 300)
        raise PublishError(
            f"{address}: the store refused, got {words}. What was sent stays; push again to send "
            "the rest."
        ) from error


def _note(store: Store, name: str, manifest: Manifest) -> None:
    data = asdict(manifest) | {"files": dict(sorted(manifest.files.items()))}
    store.write(name, (json.dumps(data, indent=2) + "\n").encode())


def _card(run: Path) -> dict[str, Any]:
    """The content of run.json.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    with damage_errors(run / "run.json", "cannot be read"):
        card = read_json(run / "run.json")
        names = {key: str(card[key]) for key in ("config_hash", "started", "state")}
        return {**names, "stages": list(map(plain_name, card["stages"]))}
