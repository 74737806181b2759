"""Ways to prepare a folder before it is handed to somebody; each is drawn from a seed.

They take the folder under attack and one next to it, which belongs to somebody else.
"""

import contextlib
import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fuzzing.judging import SECRET
from benchmarks.fuzzing.values import (
    FORMULAS,
    NUMBERS,
    PATHS,
    WORDS,
    Tree,
    mutate_bytes,
    mutate_tree,
    places,
)
from fastslow.core.files import CHECKSUMS, checksums, is_file

READ = (
    *("run.json", "config.json", "scores.jsonl", "events.jsonl", "metrics.jsonl", "seal.json"),
    *("data.json", "environment.json", "estimate.json", "tracker.json", "tracking.jsonl"),
    *("deployed.jsonl", "progress.json", "report.json", "gate/gate.json", "lock", "lease/000099"),
    *("signals/signals.json", "validity.json", "stages/*/texts.json", "resume/*/state.json"),
    *("stages/*/stage_adapters.json", "stages/*/adapter_config.json", "resume/*/checksums.json"),
    *("stages/*/adapter_model.safetensors", "rollouts/*.txt", "export/*/export.json"),
    *("records.jsonl", "resume/*/policy/*", "resume/*/slow/*", "probe/*/*.json"),
)
"""Files that some command reads, be they there or not."""
FOLDERS = (
    *("gate", "figures", "stages", "stages/*", "resume", "resume/*", "resume/*/policy", "lease"),
    *("rollouts", "probe", "probe/*", "signals", "export", "export/*", "layers"),
)
DEVICES = ("/dev/zero", "/dev/null", "/dev/stdin", "/dev/random", "/proc/self/mem")
SPARSE_BYTES = (1 << 28, 1 << 40)
DEEP = (b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000)
CODE = "planted_by_others:function"
"""Its module, where it is imported, marks the folder of somebody else."""
ADDRESSES: tuple[tuple[tuple[Any, ...], Any], ...] = (
    (("tracking",), {"kind": "mlflow", "uri": "http://127.0.0.1:9/x"}),
    (("tracking",), {"kind": "mlflow", "uri": "http://user:passw0rd1@127.0.0.1:9"}),
    (("tracking",), {"kind": "mlflow", "uri": "sqlite:///{outside}/mlflow.db"}),
    (("tracking",), {"kind": "custom", "use": CODE}),
    (("tracking",), [{"kind": "custom", "use": CODE}]),
    (("engine",), {"kind": "vllm", "urls": ["http://127.0.0.1:9"]}),
    (("engine",), {"kind": "vllm", "managed": 1, "python": "{outside}/program"}),
    (("publish",), "file://{outside}/published"),
    (("publish",), "s3://theirs/prefix"),
    (("stages", 0, "task"), CODE),
    (("tasks",), {"country_continent": {"use": CODE}}),
    (("tasks",), {"country_continent": {"data": "https://127.0.0.1:9/x.csv"}}),
    (("slow", "remedies"), [{"kind": "custom", "use": CODE}]),
    (("evaluation", "measures"), [{"kind": "custom", "use": CODE}]),
    (("evaluation", "signals"), [{"kind": "custom", "use": CODE}]),
    (("fast", "reflection"), {"model": "openai/x", "api_base": "http://127.0.0.1:9/v1"}),
    (("runs_dir",), "{outside}"),
    (("runs_dir",), "../outside"),
)
"""Keys of a configuration, and what of theirs would be called, started or imported."""
SETTINGS: tuple[Mapping[str, Any], ...] = (
    *({"lora_alpha": 1600}, {"r": 1}, {"use_rslora": True}, {"bias": "all"}),
    *({"peft_type": "IA3"}, {"alpha_pattern": {"q_proj": 99}}, {"auto_mapping": {"x": CODE}}),
)


@dataclass(frozen=True)
class Place:
    """Where an attack takes place."""

    target: Path
    """The folder that is handed over."""
    outside: Path


Attack = Callable[[random.Random, Place], None]


def a_pipe(draw: random.Random, place: Place) -> None:
    """A pipe that nobody writes to in the place of a file."""
    os.mkfifo(_cleared(_file(draw, place.target)))


def a_device(draw: random.Random, place: Place) -> None:
    """A link to a device that never ends, or ends at once."""
    _cleared(_file(draw, place.target)).symlink_to(draw.choice(DEVICES))


def a_link(draw: random.Random, place: Place) -> None:
    """A link to a file of somebody else: a plain one, or one of the same form; or to nothing."""
    path = _file(draw, place.target)
    targets = [place.outside / "secret.txt", place.outside / "missing", path]
    if is_file(path):
        targets += [place.outside / "alike"] * 3
        (place.outside / "alike").write_bytes(_secretly(path.read_bytes(), draw))
    _cleared(path).symlink_to(draw.choice(targets))


def a_linked_folder(draw: random.Random, place: Place) -> None:
    """A folder that lies elsewhere, or in itself, or nowhere."""
    path = _folder(draw, place.target)
    moved = place.outside / "moved"
    targets = [place.outside / "folder", path, path.parent, place.outside / "missing"]
    if path.is_dir() and not path.is_symlink():
        targets += [moved] * 3
        shutil.copytree(path, moved)
        (moved / "secret.txt").write_text(SECRET, encoding="utf-8")
    _cleared(path).symlink_to(draw.choice(targets))


def a_temporary_name(draw: random.Random, place: Place) -> None:
    """Links at the names that a writer might give what it has not finished."""
    path = _file(draw, place.target) if draw.random() < 0.6 else _folder(draw, place.target)
    names = (f"{path.name}.tmp", f"{path.stem}.tmp", f".{path.name}.tmp", f"tmp-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        target = place.outside / draw.choice(("secret.txt", "folder", "missing"))
        _cleared(path.with_name(name)).symlink_to(target)


def nesting(draw: random.Random, place: Place) -> None:
    """JSON in JSON in JSON."""
    content = draw.choice(DEEP)
    _put(draw, place, content + b"\n" * draw.randrange(2))


def a_number(draw: random.Random, place: Place) -> None:
    """A number that is none, or that nothing can hold, anywhere in a file."""
    number = draw.choice((*map(json.dumps, NUMBERS), "9" * 5000, "1e999", "-1e999", "1e-5000"))
    _change(draw, place, lambda text: _in_place(text, draw, number))


def another_type(draw: random.Random, place: Place) -> None:
    """Null, a list, text: anything but what a file or a field should hold."""
    if draw.random() < 0.4:
        words = ("null", "[]", "{}", "3", '""', "[null]", '{"a": 1}', "true", json.dumps("x" * 99))
        _put(draw, place, f"{draw.choice(words)}\n".encode())
        return
    _change(draw, place, lambda text: json.dumps(mutate_tree(json.loads(text), draw)))


def odd_text(draw: random.Random, place: Place) -> None:
    """Text that acts on a terminal, an editor, a spreadsheet or a path, in any field."""
    word = json.dumps(draw.choice((*FORMULAS, *PATHS, *WORDS)))
    _change(draw, place, lambda text: _in_place(text, draw, word, str))


def odd_name(draw: random.Random, place: Place) -> None:
    """A task or an example that has such a name in every file."""
    old = draw.choice(("country_continent", "word_valence", *_words(place.target)))
    new = json.dumps(draw.choice((*FORMULAS, *PATHS, *WORDS)))
    for path in sorted(place.target.rglob("*.json*")):
        if is_file(path) and not path.is_symlink():
            text = path.read_text(encoding="utf-8", errors="replace")
            path.write_text(text.replace(json.dumps(old), new), encoding="utf-8")


def a_path(draw: random.Random, place: Place) -> None:
    """A name that is a path, wherever a record has one."""
    path = place.target / draw.choice(
        ("run.json", "deployed.jsonl", "seal.json", "tracker.json", "tracking.jsonl", "config.json")
    )
    word = draw.choice((*PATHS, str(place.outside / "secret.txt"), "../../outside/secret.txt"))
    if draw.random() < 0.5 or not is_file(path):
        lines = {"artifact": word, "path": word, "folder": word, "stage": 0, "kind": "artifact"}
        path.write_text(json.dumps(lines) + "\n", encoding="utf-8")
    else:
        _rewrite(path, draw, lambda text: _in_place(text, draw, json.dumps(word), str))


def an_address(draw: random.Random, place: Place) -> None:
    """A configuration that names addresses, programs, folders elsewhere, or code."""
    keys, value = draw.choice(ADDRESSES)
    text = json.dumps(value).replace("{outside}", str(place.outside))
    config = json.loads((place.target / "config.json").read_bytes())
    at = config
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = json.loads(text)
    (place.target / "config.json").write_text(json.dumps(config), encoding="utf-8")


def settings(draw: random.Random, place: Place) -> None:
    """An adapter with the tensors that were scored, and other settings."""
    paths = sorted(place.target.glob("stages/*/adapter_config.json"))
    for path in paths:
        if draw.random() < 0.2:
            path.unlink()
        else:
            data = json.loads(path.read_bytes()) | draw.choice(SETTINGS)
            path.write_text(json.dumps(data), encoding="utf-8")


def an_edit(draw: random.Random, place: Place) -> None:
    """A score, a completion, the seed or a rate that somebody would like better."""
    name, old, new = draw.choice(
        (
            ("scores.jsonl", '"score": 0.0', '"score": 1.0'),
            ("scores.jsonl", '"reason": "', '"reason": "n'),
            ("scores.jsonl", '"completion": "', '"completion": "A'),
            ("events.jsonl", '"rollouts": ', '"rollouts": 1'),
            ("config.json", '"seed": 0', '"seed": 1'),
            ("config.json", '"lr": ', '"lr": 1'),
        )
    )
    text = (place.target / name).read_text(encoding="utf-8")
    assert old in text, f"{name} has no {old}"
    (place.target / name).write_text(text.replace(old, new, 1), encoding="utf-8")


def no_points(_: random.Random, place: Place) -> None:
    """A run without the folder that it would be resumed from."""
    shutil.rmtree(place.target / "resume")


def a_header(draw: random.Random, place: Place) -> None:
    """Weights whose header says what no header should."""
    paths = sorted(place.target.rglob("*.safetensors"))
    if not paths:
        return
    path = draw.choice(paths)
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header, rest = data[8 : 8 + size], data[8 + size :]
    how = draw.randrange(4)
    if how == 0:
        size_only = struct.pack("<Q", draw.choice((0, 1, 2**31, 2**63, 2**64 - 1)))
        path.write_bytes(size_only + header + rest)
        return
    if how == 1:
        header = draw.choice((*DEEP, b"null", b"[]", b'{"a": null}', b'{"__metadata__": [1]}'))
    elif how == 2:
        header = json.dumps(mutate_tree(json.loads(header), draw)).encode()
    else:
        header = mutate_bytes(header, draw)
    path.write_bytes(struct.pack("<Q", len(header)) + header + rest)


def a_sparse_file(draw: random.Random, place: Place) -> None:
    """A file that claims to be huge and takes no room."""
    path = _cleared(_file(draw, place.target))
    with path.open("wb") as file:
        file.write(b'{"a": 1' * draw.randrange(2))
        file.truncate(draw.choice(SPARSE_BYTES))


def an_empty_file(draw: random.Random, place: Place) -> None:
    """A file without content."""
    _put(draw, place, b"")


def a_folder(draw: random.Random, place: Place) -> None:
    """A folder where a file belongs."""
    _cleared(_file(draw, place.target)).mkdir()


def a_file(draw: random.Random, place: Place) -> None:
    """A file where a folder belongs."""
    _cleared(_folder(draw, place.target)).write_bytes(b"{}")


def nothing(draw: random.Random, place: Place) -> None:
    """A file or a folder that is not there any more."""
    _cleared(_file(draw, place.target) if draw.random() < 0.7 else _folder(draw, place.target))


def other_bytes(draw: random.Random, place: Place) -> None:
    """Bytes that are not what the file's form allows."""
    path = _file(draw, place.target)
    _put(draw, place, mutate_bytes(path.read_bytes() if is_file(path) else b"", draw), path)


ATTACKS: Mapping[str, Attack] = {
    attack.__name__: attack
    for attack in (
        *(a_pipe, a_device, a_link, a_linked_folder, a_temporary_name, nesting, a_number),
        *(another_type, odd_text, odd_name, a_path, an_address, settings, an_edit, no_points),
        *(a_header, a_sparse_file, an_empty_file, a_folder, a_file, nothing, other_bytes),
    )
}
OF_RUNS = ("a_path", "an_address", "settings", "an_edit", "no_points")
"""Attacks that only a run folder can be prepared with."""


def fit_checksums(run: Path) -> None:
    """Let resume points say that they are whole, where that can be said."""
    for point in sorted(run.glob("resume/*")):
        path = point / CHECKSUMS
        if not is_file(path):  # a pipe would wait for a reader
            continue
        with contextlib.suppress(OSError):
            path.write_text(json.dumps(checksums(point)))


def _file(draw: random.Random, target: Path) -> Path:
    """A file of the folder, mostly one that some command reads; it may not be there."""
    if draw.random() < 0.8:
        return _matching(draw, target, READ)
    files = sorted(path for path in target.rglob("*") if not path.is_dir())
    return draw.choice(files)


def _folder(draw: random.Random, target: Path) -> Path:
    return _matching(draw, target, FOLDERS)


def _matching(draw: random.Random, target: Path, patterns: tuple[str, ...]) -> Path:
    while True:
        pattern = draw.choice(patterns)
        matches = sorted(target.glob(pattern)) if "*" in pattern else [target / pattern]
        if matches:
            return draw.choice(matches)


def _cleared(path: Path) -> Path:
    """The path, with nothing at it and a folder around it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _put(draw: random.Random, place: Place, content: bytes, path: Path | None = None) -> None:
    _cleared(path or _file(draw, place.target)).write_bytes(content)


def _change(draw: random.Random, place: Place, change: Callable[[str], str]) -> None:
    """Change a JSON file, or a line of one."""
    paths = [_file(draw, place.target) for _ in range(50)]
    path = next((p for p in paths if p.suffix in (".json", ".jsonl") and is_file(p)), None)
    if path is not None and not path.is_symlink():
        _rewrite(path, draw, change)


def _rewrite(path: Path, draw: random.Random, change: Callable[[str], str]) -> None:
    """Change a JSON file, or one of its lines; one that holds no JSON stays as it is."""
    text = path.read_text(encoding="utf-8", errors="replace")
    with contextlib.suppress(ValueError, RecursionError):
        if path.suffix == ".jsonl":
            lines = text.splitlines() or ["{}"]
            at = draw.randrange(len(lines))
            lines[at] = change(lines[at])
            text = "".join(f"{line}\n" for line in lines)
        else:
            text = change(text)
        path.write_text(text, encoding="utf-8", errors="replace")


_MARK = "@@mark@@"


def _in_place(text: str, draw: random.Random, word: str, kind: type = object) -> str:
    """A JSON text with `word`, as it stands, in the place of something of a kind in it."""
    tree: Tree = json.loads(text)
    holders = [(at, key) for at, key in places(tree) if isinstance(at[key], kind)]
    if not holders:
        return word
    holder, key = draw.choice(holders)
    holder[key] = _MARK
    return json.dumps(tree, indent=2 if "\n" in text else None).replace(json.dumps(_MARK), word)


def _words(target: Path) -> list[str]:
    """Names of examples that were scored."""
    with contextlib.suppress(OSError, ValueError, LookupError):
        line = (target / "scores.jsonl").read_text(encoding="utf-8").partition("\n")[0]
        return [str(json.loads(line)["example"])]
    return []


def _secretly(data: bytes, draw: random.Random) -> bytes:
    """The same file with secrets in some of its texts; with a secret alone where it has none."""
    try:
        lines = [json.loads(line) for line in data.splitlines()]
    except ValueError:
        lines = []
    try:
        lines = lines or [json.loads(data)]
    except ValueError:
        return f"{SECRET}\n".encode() * 3
    for tree in lines:
        for at, key in list(places(tree)):
            if isinstance(at[key], str) and draw.random() < 0.3:
                at[key] = SECRET
    return "".join(json.dumps(tree) + "\n" for tree in lines).encode()
