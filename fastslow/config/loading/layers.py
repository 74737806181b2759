"""From files and overrides to one tree: later wins, mappings merge, lists replace."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastslow.config.loading.yaml_nodes import (
    MAX_DEPTH,
    KeyPath,
    Mistake,
    Node,
    Origin,
    check_text,
    compose,
    plain_scalar,
    printable,
    refuse,
)
from fastslow.core.credentials import without_keys
from fastslow.core.errors import nearest
from fastslow.core.files import open_regular
from fastslow.task.registry import shipped_root

MAX_BYTES = 1_000_000
"""Size a file may have."""
MAX_LAYERS = 64
"""Files one run may be made of."""


@dataclass(frozen=True)
class Layers:
    """What was read and merged."""

    root: Node
    """The merged tree; a mapping."""
    texts: Mapping[str, str]
    """Path as shown to the user to the file's text."""


def read_layers(files: Sequence[Path], overrides: Sequence[str]) -> Layers:
    """Read `files` in order, each after what it extends, then apply `overrides` left to right.

    Raises:
        ConfigError: A file cannot be read or is not of the dialect, or an override is malformed.
    """
    root = Node({}, Origin(_display(files[0]), 1) if files else Origin("command line"))
    reader = _Reader()
    for path in files:
        root = merge(root, reader.layer(path, None, ()))
    refuse(reader.mistakes)
    return Layers(lay_overrides(root, overrides), reader.texts)


def lay_overrides(root: Node, overrides: Sequence[str]) -> Node:
    """`root` with every `key=value` laid over it in turn; `ConfigError` for a malformed one."""
    mistakes: list[Mistake] = []
    for text in overrides:
        origin = Origin(f"override {without_keys(text)!r}")
        try:
            root = _lay_override(root, text, origin)
        except ValueError as err:
            mistakes.append(Mistake(origin, (), f"{err}."))
        except Mistake as mistake:
            mistakes.append(mistake)
    refuse(mistakes)
    return root


def merge(base: Node, top: Node) -> Node:
    """Lay `top` over `base`: mappings merge key by key, anything else replaces.

    Two mappings that state different `kind`s are different things, so the upper one replaces; as
    are two of `kind: custom` that `use` different plug-ins.
    """
    if not (isinstance(base.value, dict) and isinstance(top.value, dict)):
        return top
    if "kind" in base.value and "kind" in top.value:
        for tag in {"kind", "use"} & base.value.keys() & top.value.keys():
            if base.value[tag].value != top.value[tag].value:
                return top
    merged = dict(base.value)
    for name, node in top.value.items():
        merged[name] = merge(merged[name], node) if name in merged else node
    return Node(merged, top.origin)


def place(root: Node, path: KeyPath, value: Node, origin: Origin) -> Node:
    """`root` with `value` merged in at `path`; sections that this makes are of `origin`.

    Raises:
        ValueError: The path names a position that a list does not have.
    """
    if not path:
        return merge(root, value)
    part, rest = path[0], path[1:]
    if isinstance(root.value, list):
        size = len(root.value)
        word = str(part)
        if not (word.isascii() and word.isdigit() and int(word[:9]) < size):
            raise ValueError(f"expected a position from 0 to {size - 1} in the list, got {word!r}")
        items = list(root.value)
        items[int(word)] = place(items[int(word)], rest, value, origin)
        return Node(items, root.origin)
    section = root if isinstance(root.value, dict) else Node({}, origin)
    inner = section.find((part,)) or Node({}, origin)
    entry = place(inner, rest, value, origin) if rest else value
    merged = merge(section, Node({str(part): entry}, origin))
    return Node(merged.value, section.origin)


def _lay_override(root: Node, text: str, origin: Origin) -> Node:
    name, equals, written = text.partition("=")
    path, written = tuple(name.strip().split(".")), written.strip()
    if not equals or not all(path) or len(path) > MAX_DEPTH:
        raise ValueError("expected key=value, as in slow.lr=1e-4")
    if not written:
        raise ValueError("no value. Write null for none, or '\"\"' for empty text")
    if written[0] in "[{\"'":  # else one plain word: paths and sentences stay whole
        value = compose(written, origin)
    else:
        value = Node(plain_scalar(check_text(written)), origin)
    return place(root, path, value, origin)


class _Reader:
    """Reads files with those they extend, each once."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.mistakes: list[Mistake] = []
        self._merged: dict[Path, Node] = {}
        """Every file read, over what it extends."""

    def layer(self, path: Path, asker: Origin | None, chain: tuple[Path, ...]) -> Node:
        """One file over what it extends; an empty mapping after noting why it cannot be used."""
        try:
            return self._read(path, asker, chain)
        except Mistake as mistake:
            self.mistakes.append(mistake)
            return Node({}, mistake.origin)

    def _read(self, path: Path, asker: Origin | None, chain: tuple[Path, ...]) -> Node:
        if not _is_name(path):
            text = "no file can have this name. Remove the NUL or half surrogate pair from it."
            raise Mistake(asker or Origin(printable(str(path))), (), text)
        names = Path(os.path.normpath(path)).parts
        if names[:1] == ("configs",) and not path.exists():
            path = shipped_root().joinpath(*names)  # the copy shipped with the package
        name, identity = _display(path), Path(os.path.realpath(path))
        if identity in self._merged:
            return self._merged[identity]
        where: tuple[Origin, KeyPath] = (asker, ("extends",)) if asker else (Origin(name), ())
        if identity in chain:
            cycle = " -> ".join(_display(Path(os.path.relpath(p))) for p in (*chain, identity))
            raise Mistake(*where, f"a cycle, got {cycle}. Break it at one of them.")
        if len(self.texts) == MAX_LAYERS:
            text = f"more than {MAX_LAYERS} files are extended. Use fewer."
            raise Mistake(*where, text)
        try:
            text = self.texts[name] = _read_text(path, name)
        except OSError as err:
            shown_name = f" {name}" if asker else ""
            text = f"cannot read{shown_name}: {_reason(err, path)}"
            raise Mistake(*where, text) from err
        root = compose(text, Origin(name, 1))
        entries = {} if root.value is None else root.value
        if not isinstance(entries, dict):
            text = "expected a mapping of keys at the top, as in 'name: my-run'."
            raise Mistake(root.origin, (), text)
        below = Node({}, root.origin)
        for lower, origin in self._extended(entries.get("extends")):
            below = merge(below, self.layer(path.parent / lower, origin, (*chain, identity)))
        top = {key: node for key, node in entries.items() if key != "extends"}
        self._merged[identity] = merge(below, Node(top, root.origin))
        return self._merged[identity]

    def _extended(self, node: Node | None) -> list[tuple[str, Origin]]:
        """The paths that `extends` names, with their origins."""
        if node is None or node.value is None:
            return []
        items = node.value if isinstance(node.value, list) else [node]
        paths = [(item.value, item.origin) for item in items if isinstance(item.value, str)]
        if len(paths) != len(items) or any(not path for path, _ in paths):
            text = "expected a path or a list of paths, relative to this file."
            self.mistakes.append(Mistake(node.origin, ("extends",), text))
            return []
        return paths


def _is_name(path: Path) -> bool:
    """Whether a file could have this name; the command line and YAML let through what could not."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def _display(path: Path) -> str:
    return printable(os.path.normpath(path))


def _read_text(path: Path, name: str) -> str:
    with open_regular(path) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        text = f"larger than {MAX_BYTES} bytes, too large for a configuration. Make it smaller."
        raise Mistake(Origin(name, 1), (), text)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        text = f"not UTF-8 text, got byte 0x{data[err.start]:02x}. Save the file as UTF-8."
        raise Mistake(Origin(name, line), (), text) from err


def _reason(err: OSError, path: Path) -> str:
    if isinstance(err, FileNotFoundError):
        try:
            siblings = [p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".json")]
        except OSError:
            return "no such file, and no such folder."
        key = "" if path.suffix else " A key is set by KEY=VALUE."
        return f"no such file.{nearest(path.name, siblings) if siblings else ''}{key}"
    return f"{err.strerror}."
