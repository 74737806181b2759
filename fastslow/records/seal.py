"""The seal of a run folder: what it held when it was last written, signed by the user who made it.

A folder may be edited between two commands, or come from somebody else. `seal.json` has the SHA-256
of the configuration, of every kept stage, and of the records up to the length that they had. Its
signature is an HMAC under a key of this user: who edits a folder cannot make the seal fit without
it. A folder that this user did not sign is data: addresses and code that its configuration names
are used only where the user says so (`require_trust`).
"""

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fastslow.core.decode import shaped
from fastslow.core.errors import CheckpointError
from fastslow.core.files import checksums, damage_errors, open_regular, read_json, write_file
from fastslow.core.text import shorten
from fastslow.core.types import Json
from fastslow.policy.model_store import cache_home
from fastslow.records.jsonl import RecordWriter

SEAL_FILE = "seal.json"
KEY_VARIABLE = "FASTSLOW_KEY"
"""Environment variable of the signing key, for users whose machines share no home folder."""
KEY_FILE = "key"
"""In the folder of everything kept between runs; made with the first run, readable by its user."""
KEY_BYTES = 32
_BLOCK = 1 << 20
_PLACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)?")
"""A name in the run folder, or in a folder in it."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """The first part of a record file."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Seal:
    """What a run folder held."""

    run: str
    """Name of the folder when the run was made."""
    config: str
    """SHA-256 of config.json."""
    next_config: str | None = None
    """That of a configuration which is about to be written; None otherwise."""
    points: int = 0
    """Resume points made so far."""
    records: Mapping[str, Prefix] = field(default_factory=dict)
    """By the stem of a record file; what was written after is not sealed yet."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """By path in the run folder, one sum over every file in it."""
    signature: str | None = None
    """HMAC-SHA256 of all the others, in hex digits; None where the user has no key, or continued a
    folder of somebody else."""


def begin_seal(path: Path, run: str) -> None:
    """Seal the folder of a new run, which has a configuration; `OSError` if the disk refused."""
    _write(path, Seal(run, sha256_of_prefix(path / "config.json")), sign=True)


def _write(path: Path, seal: Seal, sign: bool) -> None:
    seal = replace(seal, signature=_signature(seal, make_key=True) if sign else None)
    write_file(path, SEAL_FILE, json.dumps(asdict(seal), indent=2) + "\n", in_place=True)


class SealWriter:
    """Keeps the seal of an open run folder up with what is written.

    A run of an earlier version has no seal and gets none. Methods raise `OSError` if the disk
    refused. A seal is never of more than there is: what shrinks or is replaced is sealed first.
    """

    def __init__(self, path: Path, writers: Mapping[str, RecordWriter]) -> None:
        """Take the seal over from the folder; the writers are those of its record files."""
        self._path, self._writers, self._seal = path, writers, read_seal(path)
        self._signs = is_ours(path)  # what somebody else began stays theirs

    @property
    def may_begin_again(self) -> bool:
        """Whether no resume point was ever made, so that nothing is lost by starting again."""
        if self._seal is None:
            return not any(writer.position() for writer in self._writers.values())
        return not self._seal.points

    def write(self, **changes: Any) -> None:
        """Seal the records as they are now, with these fields of the seal changed."""
        for writer in self._writers.values():
            writer.sync()  # a crash of the machine must not leave less than is sealed
        records = {s: Prefix(w.position(), w.sha256()) for s, w in self._writers.items()}
        self._replace(records=records, **changes)

    def replace_config(self, text: str) -> None:
        """Write another config.json."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._replace(next_config=digest)  # a kill may come before or after it is written
        write_file(self._path, "config.json", text)
        self._replace(config=digest, next_config=None)

    def add_point(self) -> None:
        """Count a resume point that was made."""
        self.write(points=self._seal.points + 1 if self._seal else 0)

    def drop_folder(self, name: str) -> None:
        """Leave out a folder that will be replaced."""
        if self._seal is not None and name in self._seal.folders:
            rest = {key: digest for key, digest in self._seal.folders.items() if key != name}
            self._replace(folders=rest)

    def add_folder(self, name: str) -> None:
        """Seal a folder that was written."""
        if self._seal is not None:
            self.write(folders={**self._seal.folders, name: folder_digest(self._path / name)})

    def cut(self, positions: Mapping[str, int]) -> None:
        """Cut the record files to these lengths in bytes; `CheckpointError` if one is shorter."""
        for stem, writer in self._writers.items():
            writer.require(positions[stem])
        records = {
            stem: Prefix(positions[stem], sha256_of_prefix(writer.path, positions[stem]))
            for stem, writer in self._writers.items()
        }
        self._replace(records=records)
        for stem, writer in self._writers.items():
            writer.truncate(positions[stem])

    def _replace(self, **changes: Any) -> None:
        if self._seal is not None:
            self._seal = replace(self._seal, **changes)
            _write(self._path, self._seal, self._signs)


def read_seal(path: Path) -> Seal | None:
    """The seal of a run folder; None for one that has none, of an earlier version or a copy.

    Raises:
        CheckpointError: It is not a seal.
    """
    if not os.path.lexists(path / SEAL_FILE):
        return None
    with damage_errors(path / SEAL_FILE, "not a seal"):
        seal = shaped(Seal, read_json(path / SEAL_FILE))
        for name in (*seal.records, *seal.folders):
            if not _PLACE.fullmatch(name):
                raise ValueError(f"{shorten(name, 60)!r} is not a part of a run folder")
        return seal


def is_ours(path: Path) -> bool:
    """Whether this user signed the seal of a run folder; `CheckpointError` as in `read_seal`."""
    seal = read_seal(path)
    if seal is None or seal.signature is None:
        return False
    return hmac.compare_digest(seal.signature, _signature(seal) or "")


def broken_seal(path: Path) -> str | None:
    """The first part of a run folder that is not what was sealed, in a few words; None if none.

    None too without a seal. `CheckpointError` as in `read_seal`.
    """
    seal = read_seal(path)
    if seal is None:
        return None
    try:
        if sha256_of_prefix(path / "config.json") not in (seal.config, seal.next_config):
            return "config.json is not what was written"
        for stem, prefix in seal.records.items():
            if (size := (path / f"{stem}.jsonl").stat().st_size) < prefix.bytes:
                return f"{stem}.jsonl has {size:,} bytes, expected at least {prefix.bytes:,}"
            if sha256_of_prefix(path / f"{stem}.jsonl", prefix.bytes) != prefix.sha256:
                return f"the first {prefix.bytes:,} bytes of {stem}.jsonl are not what was written"
        for name, digest in seal.folders.items():
            # one that was removed is missed by whoever needs it
            if (path / name).is_dir() and folder_digest(path / name) != digest:
                return f"{name} holds other files than were written"
    except OSError as error:
        return f"{Path(str(error.filename)).name}: {error.strerror}"
    return None


def require_unbroken(path: Path) -> None:
    """Refuse a run folder that was edited since it was sealed.

    Raises:
        CheckpointError: It was; names the part.
    """
    if (problem := broken_seal(path)) is not None:
        raise CheckpointError(
            f"{path}: edited or damaged since the run wrote it: {problem}. Restore it from a copy, "
            "or start a new run; `fastslow report` still shows what it holds."
        )


def sha256_of_prefix(path: Path, size: int | None = None) -> str:
    """SHA-256 of the first `size` bytes of a file, by default of all; `OSError` if not readable."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        rest = os.fstat(file.fileno()).st_size if size is None else size
        while rest > 0 and (block := file.read(min(rest, _BLOCK))):
            digest.update(block)
            rest -= len(block)
    return digest.hexdigest()


def folder_digest(path: Path) -> str:
    """One sum over names and content of every file under a folder; `OSError` if not readable."""
    return hashlib.sha256(json.dumps(checksums(path), sort_keys=True).encode()).hexdigest()


def _signature(seal: Seal, make_key: bool = False) -> str | None:
    """The signature that this user gives such a seal; None without a key."""
    key = _user_key(make_key)
    if key is None:
        return None
    data: dict[str, Json] = asdict(replace(seal, signature=None))
    return hmac.new(key, json.dumps(data, sort_keys=True).encode(), "sha256").hexdigest()


def _user_key(make: bool) -> bytes | None:
    """The key of this user: of the environment, of the file, or a new one; None if there is none.

    A home folder that cannot be written leaves seals unsigned, which stops nothing.
    """
    if words := os.environ.get(KEY_VARIABLE):
        return words.encode()
    path = cache_home() / KEY_FILE
    with suppress(OSError):
        if make and not os.path.lexists(path):
            _make_key(path)
        with open_regular(path) as file:
            key = file.read(KEY_BYTES)
        return key if len(key) == KEY_BYTES else None
    return None


def _make_key(path: Path) -> None:
    """A new key, whole or not at all; where several processes make one, the first stands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
    try:
        os.link(temporary, path)  # unlike a rename it does not replace another's
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
