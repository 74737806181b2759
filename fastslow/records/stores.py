"""Where runs are published: what fsspec reaches, and the hub, each as a folder of files."""

import hashlib
import importlib.util
import io
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from fastslow.core.addresses import EXTRAS, PROTOCOLS, require_address
from fastslow.core.errors import ConfigError
from fastslow.core.files import UNFINISHED, open_regular

_CHUNK = 1 << 20


class Store(Protocol):
    """A folder somewhere else. Names are relative to it, with `/`."""

    def sizes(self) -> Mapping[str, int]:
        """Bytes of every file that is there."""

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""

    def write(self, name: str, content: Path | bytes) -> str:
        """Write a file, whole or not at all where the store can; gives its SHA-256."""

    def settle(self, obsolete: str) -> None:
        """Make what was written last, and remove the file with this name."""


class FileStore:
    """What fsspec reaches."""

    def __init__(self, address: str) -> None:
        from fsspec.core import url_to_fs

        self._is_here = address.startswith(("file:", "memory:"))
        self._files, root = url_to_fs(address, **({"auto_mkdir": True} if self._is_here else {}))
        self._root = root.rstrip("/")
        self._files.invalidate_cache()

    def sizes(self) -> Mapping[str, int]:
        """Bytes of every file that is there."""
        try:
            entries = self._files.find(self._root, detail=True)
        except FileNotFoundError:
            return {}
        return {name[len(self._root) + 1 :]: entry["size"] for name, entry in entries.items()}

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""
        try:
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return None
        return content

    def write(self, name: str, content: Path | bytes) -> str:
        """Write a file; object stores take it whole, when it is closed, and a folder here too."""
        path = PurePosixPath(self._root, name)
        # the same name every time: what a push that was killed left, the next one writes over
        place = str(path.with_name(f"{UNFINISHED}{path.name}") if self._is_here else path)
        digest = hashlib.sha256()
        source = io.BytesIO(content) if isinstance(content, bytes) else open_regular(content)
        with source, self._files.open(place, "wb") as target:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                target.write(chunk)
        if self._is_here:
            self._files.mv(place, str(path))
        return digest.hexdigest()

    def settle(self, obsolete: str) -> None:
        """Remove the file with this name."""
        if self._files.exists(f"{self._root}/{obsolete}"):
            self._files.rm_file(f"{self._root}/{obsolete}")


class HubStore:
    """A folder of a repository on the Hugging Face hub, private when it is made; one commit."""

    def __init__(self, address: str) -> None:
        from huggingface_hub import HfApi

        owner, name, *folders = address.removeprefix("hf://").strip("/").split("/")
        self._repo, self._folder = f"{owner}/{name}", "/".join(folders)
        self._api = HfApi()
        self._api.create_repo(self._repo, private=True, exist_ok=True)
        self._operations: list[Any] = []

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}".lstrip("/")

    def sizes(self) -> Mapping[str, int]:
        """Bytes of every file that is there."""
        from huggingface_hub.errors import EntryNotFoundError
        from huggingface_hub.hf_api import RepoFile

        try:
            entries = list(
                self._api.list_repo_tree(self._repo, self._folder or None, recursive=True)
            )
        except EntryNotFoundError:
            return {}
        skip = len(self._path(""))
        return {e.path[skip:]: e.size for e in entries if isinstance(e, RepoFile)}

    def read(self, name: str) -> bytes | None:
        """The content of a file; None where there is none."""
        from huggingface_hub.errors import EntryNotFoundError

        try:
            return Path(self._api.hf_hub_download(self._repo, self._path(name))).read_bytes()
        except EntryNotFoundError:
            return None

    def write(self, name: str, content: Path | bytes) -> str:
        """Have a file written when all is settled."""
        from huggingface_hub import CommitOperationAdd

        source = content if isinstance(content, bytes) else str(content)
        operation = CommitOperationAdd(self._path(name), source)
        self._operations.append(operation)
        return operation.upload_info.sha256.hex()

    def settle(self, obsolete: str) -> None:
        """Write everything in one commit."""
        message = "Publish a run of fastslow"
        self._api.create_commit(self._repo, self._operations, commit_message=message)


def open_store(address: str) -> Store:
    """The store at an address that `require_package` took."""
    return HubStore(address) if address.startswith("hf://") else FileStore(address)


def require_package(address: str, where: str) -> None:
    """Make sure that an address is one, and that what reaches it is installed.

    Raises:
        ConfigError: It is not; `where` says what gave it.
    """
    try:
        package = PROTOCOLS[require_address(address)]
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    if package is not None and importlib.util.find_spec(package) is None:
        raise ConfigError(
            f"{where}: {address.partition('://')[0]}:// needs the package {package}, which is not "
            f"installed. Install it with: pip install 'fastslow[{EXTRAS[package]}]'"
        )
